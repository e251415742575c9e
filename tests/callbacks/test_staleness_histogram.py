"""What is counted is what was pushed; files have it too, the callback's own and those of Keras' TensorBoard."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdist
from tests.callbacks.programs.staleness import EPOCHS, POLICIES, STEPS
from tests.helpers.cluster_runner import run_python
from tfdist.callbacks.staleness_histogram import text_of
from tfdist.coordination.staleness import BINS, Staleness


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staleness")
    run_python(["-m", "tests.callbacks.programs.staleness", str(folder)], workers=0, logs=folder / "logs")
    return folder


@pytest.fixture
def results(folder: Path) -> dict[str, Any]:
    return pickle.loads((folder / "results.pickle").read_bytes())


def events(folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """What is in all event files of a folder: {tag: {step: value}}."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
    return found


def staleness_of(counts: dict[int, int], *, dropped: int = 0, largest: int | None = None) -> Staleness:
    made = Staleness()
    for value, count in counts.items():
        made.counts[min(value, BINS - 1)] += count
        made.total += value * count
    made.largest, made.dropped = max(counts, default=0) if largest is None else largest, dropped
    return made


@pytest.mark.cluster
@pytest.mark.parametrize("name", POLICIES)
def test_every_push_of_an_epoch_is_counted(results, name):
    found = results[name]
    assert [int(counts.sum()) for counts in found["counts"]] == [STEPS] * EPOCHS
    (again,), _ = found["again"]
    assert again.sum() == STEPS, "of the other fit alone"
    for epoch, counts in enumerate(found["counts"]):
        if name == "none":
            continue
        history = found["history"]
        assert history["staleness"][epoch] == pytest.approx(np.dot(counts, np.arange(BINS)) / STEPS)
        assert history["max_staleness"][epoch] == np.flatnonzero(counts)[-1]
        assert history["dropped"][epoch] == found["dropped"][epoch]


@pytest.mark.cluster
def test_what_was_dropped_is_what_was_not_applied(results):
    found = results["bounded"]
    dropped = sum(found["dropped"]) + sum(found["again"][1])
    assert 0 < dropped == STEPS * (EPOCHS + 1) - found["iterations"]


@pytest.mark.cluster
@pytest.mark.parametrize("name", POLICIES)
def test_events_hold_the_histogram(folder, results, name):
    found, written = results[name], events(folder / name / "staleness")
    assert written.keys() == {"staleness", *(f"staleness/{what}" for what in ("mean", "max", "dropped"))}
    for epoch, counts in enumerate(found["counts"]):
        buckets = written["staleness"][epoch]
        values = np.flatnonzero(counts)
        for left, right, count in buckets:
            inside = [v for v in values if left <= v < right or (v == right == values[-1])]
            assert count == sum(counts[v] for v in inside)
        assert buckets[:, 2].sum() == STEPS
        assert written["staleness/mean"][epoch] == pytest.approx(np.dot(counts, np.arange(BINS)) / STEPS)
        assert written["staleness/max"][epoch] == values[-1]
        assert written["staleness/dropped"][epoch] == found["dropped"][epoch]


@pytest.mark.cluster
def test_keras_tensorboard_has_the_logs(folder, results):
    for name in ("bounded", "synchronous"):
        written = events(folder / name / "train")
        for what in ("staleness", "max_staleness", "dropped"):
            values = [float(written[f"epoch_{what}"][epoch]) for epoch in range(EPOCHS)]
            assert values == pytest.approx(results[name]["history"][what])


@pytest.mark.cluster
def test_it_is_logged_as_text(folder, results):
    log = (folder / "logs" / "0.log").read_text()
    assert log.count("staleness in epoch 3: mean ") == len(POLICIES), "once a fit, but not if verbose=0"
    assert f"{results['bounded']['dropped'][2]} of {STEPS} dropped" in log


@pytest.mark.unit
def test_the_text_has_a_line_for_each_value():
    lines = text_of(staleness_of({0: 10, 1: 40, 2: 1}, dropped=3)).splitlines()
    assert lines[0] == "mean 0.82, largest 2, 3 of 51 dropped"
    assert [line.split() for line in lines[1:]] == [["0", "#" * 10, "10"], ["1", "#" * 40, "40"], ["2", "#", "1"]]


@pytest.mark.unit
def test_many_values_share_lines():
    lines = text_of(staleness_of({0: 1, 5: 2, 6: 4, 100: 3})).splitlines()
    assert lines[0] == "mean 33.40, largest 100, 0 of 10 dropped"
    names, counts = zip(*((line.split()[0], line.split()[-1]) for line in lines[1:]), strict=True)
    assert names[:2] == ("0-5", "6-11") and names[-1] == "60.."
    assert counts == ("3", "4", *["0"] * 8, "3")


@pytest.mark.unit
def test_an_epoch_without_pushes_has_a_text():
    assert text_of(Staleness()).splitlines()[0] == "mean 0.00, largest 0, 0 of 0 dropped"


@pytest.mark.unit
@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, lambda: tfdist.MirroredStrategy(["CPU:0"])])
def test_it_is_refused_elsewhere(strategy):
    made = strategy()
    with made.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=f"Received: a model under {type(made).__name__}. Leave the callback out"):
        model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[tfdist.callbacks.StalenessHistogram()])


@pytest.mark.unit
def test_another_verbosity_is_refused():
    with pytest.raises(ValueError, match="Received: verbose=2"):
        tfdist.callbacks.StalenessHistogram(verbose=2)
