"""What a `fit` with the callback does, in one process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import Any

import keras
import numpy as np
import pytest

import tfdist
from tests.helpers.setups import features, labels, weights
from tfdist.checkpoint import files as checkpoint_files
from tfdist.checkpoint.files import CheckpointFiles
from tfdist.errors import CheckpointError

pytestmark = pytest.mark.unit

ROWS, BATCH = 40, 8


def make(units: int = 8) -> keras.Model:
    keras.utils.set_random_seed(7)
    layers = [keras.Input((6,)), keras.layers.Dense(units, "tanh"), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def fit(model: keras.Model, directory: Any, *others: Any, epochs: int = 3, **options: Any) -> Any:
    checkpoint = tfdist.callbacks.Checkpoint(directory, **options)
    x, y = features(ROWS), labels(ROWS)
    return model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[checkpoint, *others])


def test_a_broken_checkpoint_costs_time_only(tmp_path, caplog):
    whole, again = make(), make()
    expected = fit(whole, tmp_path / "a").history
    fit(make(), tmp_path / "b", every_steps=2)
    files = CheckpointFiles(tmp_path / "b", 3)
    broken, last = files.names()[0], files.names()[1]
    path = files.path(broken, "weights.weights.h5")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with caplog.at_level(logging.INFO):
        history = fit(again, tmp_path / "b", every_steps=2).history
    assert f"{broken} is left out: weights.weights.h5 has another SHA-256" in caplog.text
    assert f"goes on from {tmp_path / 'b' / last}" in caplog.text
    assert history == expected
    np.testing.assert_array_equal(weights(again), weights(whole))


def test_it_sees_what_callbacks_behind_it_have_done(tmp_path):
    class Doubles(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[0].bias.assign([2.0**epoch] * 8)

    fit(make(), tmp_path, Doubles(), epochs=2)
    model = make()
    fit(model, tmp_path, epochs=2)
    np.testing.assert_array_equal(model.layers[0].bias.numpy(), [2.0] * 8)


def test_training_goes_on_while_files_are_written(tmp_path, monkeypatch):
    """And waits at the next checkpoint, so that they don't pile up."""
    may_write, seen = threading.Event(), []
    write = checkpoint_files._write

    def slow(*args: Any) -> Any:
        assert may_write.wait(60)
        return write(*args)

    class Looks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch, may_write.is_set()))
            if batch == 3:
                may_write.set()

    monkeypatch.setattr(checkpoint_files, "_write", slow)
    fit(make(), tmp_path, Looks(), epochs=1, every_steps=2)
    # The first is due behind step 1, the second behind step 3.
    assert seen == [(0, False), (1, False), (2, False), (3, False), (4, True)]
    assert len(CheckpointFiles(tmp_path, 3).names()) == 3


def test_the_weights_are_read_without_tfdist(tmp_path):
    """Weights and optimizer; of a model under a strategy, in the middle of an accumulation."""
    with tfdist.OneDeviceStrategy(gradient_accumulation_steps=3).scope():
        model = make()
    fit(model, tmp_path, every_steps=2, epochs=1)
    (name,) = [one for one in CheckpointFiles(tmp_path, 3).names() if one.endswith("step-000002")]
    script = (
        "import sys, keras, numpy as np\n"
        "layers = [keras.Input((6,)), keras.layers.Dense(8, 'tanh'), keras.layers.Dropout(0.3)]\n"
        "model = keras.Sequential([*layers, keras.layers.Dense(3)]); model.compile('adam', 'mse')\n"
        "model.optimizer.build(model.trainable_variables)\n"
        f"model.load_weights(r'{tmp_path / name}/weights.weights.h5')\n"
        "assert 'tfdist' not in sys.modules\n"
        "x = np.random.RandomState(0).randn(8, 6).astype('float32')\n"
        "assert np.abs(model.predict(x, verbose=0)).sum() > 0 and int(model.optimizer.iterations) == 0\n"
        "print(float(np.sum(model.get_weights()[0])))\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout.split()[-1]) == float(np.sum(make().get_weights()[0]))  # no optimizer step yet


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    fit(make(), tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=r"with shape and dtype \[\[6, 8\], 'float32'\], and here \[\[6, 9\]"):
        fit(make(9), tmp_path, epochs=1)


def test_training_that_has_more_epochs_goes_on(tmp_path):
    whole, longer = make(), make()
    expected = fit(whole, tmp_path / "a", epochs=4).history
    fit(make(), tmp_path / "b", epochs=2)
    assert fit(longer, tmp_path / "b", epochs=4).history == expected
    np.testing.assert_array_equal(weights(longer), weights(whole))


def test_another_number_of_replicas_goes_on_with_a_warning(tmp_path, caplog):
    fit(make(), tmp_path, epochs=1, every_steps=3)
    files = CheckpointFiles(tmp_path, 3)
    values = files.path(files.names()[0], "state.json")
    assert '"replicas": 1' in values.read_text()
    # As two replicas would have written it, with their metrics side by side.
    for name in files.names():
        with np.load(files.path(name, "state.npz")) as saved:
            arrays = dict(saved)
        arrays |= {key[:-1] + "1": np.zeros_like(one) for key, one in arrays.items() if "/metrics/" in key}
        text = files.path(name, "state.json").read_text().replace('"replicas": 1', '"replicas": 2')
        rewrite(files, name, text, arrays)
    with caplog.at_level(logging.WARNING):
        history = fit(make(), tmp_path, epochs=2, every_steps=3)
    assert "made by 1 workers with 2 replicas in all" in caplog.text
    assert history.epoch == [0, 1]


def rewrite(files: CheckpointFiles, name: str, text: str, arrays: dict[str, np.ndarray]) -> None:
    """The same place again, with other contents, so that it is the newer one."""
    from tfdist.gradients.checkpoint_state import to_bytes

    _, epoch, _, step = name.split("-")
    weights = files.path(name, "weights.weights.h5").read_bytes()
    content = {"weights.weights.h5": weights, "state.npz": to_bytes(arrays), "state.json": text.encode()}
    files.write(int(epoch), int(step), content)


def test_a_model_that_is_not_built_is_built_first(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert fit(model, tmp_path, epochs=1).epoch == [0]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"keep": 0}, "keep=0"),
        ({"every_steps": 0}, "every_steps=0"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
    ],
)
def test_options_that_are_refused(tmp_path, options, expected):
    with pytest.raises(ValueError, match=expected):
        tfdist.callbacks.Checkpoint(tmp_path, **options)


def test_strategies_that_keep_replicas_otherwise_are_refused(tmp_path):
    """TensorFlow's own, of two replicas."""
    script = (
        "import tensorflow as tf; from tests.checkpoint.test_callback import fit, make\n"
        "devices = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0], devices)\n"
        "with tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']).scope(): model = make()\n"
        f"fit(model, r'{tmp_path}')\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Received: MirroredStrategy. Use keras.callbacks.BackupAndRestore" in found.stderr


def test_steps_are_counted_over_epochs(tmp_path):
    """Of five batches; the one that is due with the last batch of the second epoch comes behind its validation."""
    fit(make(), tmp_path, epochs=3, every_steps=2, keep=9)
    places = [(0, 2), (0, 4), (1, 1), (1, 3), (2, 0), (2, 2), (2, 4), (3, 0)]
    assert CheckpointFiles(tmp_path, 9).names() == [f"epoch-{e:04}-step-{s:06}" for e, s in reversed(places)]


def test_seconds(tmp_path):
    fit(make(), tmp_path, epochs=1, every_seconds=1e-6, keep=9)
    assert CheckpointFiles(tmp_path, 9).names() == [
        "epoch-0001-step-000000",
        *(f"epoch-0000-step-{step:06}" for step in (4, 3, 2, 1)),
    ]
