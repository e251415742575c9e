"""Random changes in the pipeline: other ones for each worker, epoch and step; the same ones at every run."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfdist
from tfdist.data import ShardOptions, TFRecordWriter, read_tfrecords

pytestmark = pytest.mark.unit

ROWS, BATCH = 64, 8
PICTURE = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """The same picture in all records, so that what differs was changed."""
    path = str(tmp_path_factory.mktemp("augment") / "part")
    features = {"image": tfdist.data.Image((6, 6, 3)), "y": tfdist.data.Tensor((), "int64")}
    with TFRecordWriter(path, features, num_shards=1) as writer:
        for y in range(ROWS):
            writer.write(image=PICTURE, y=y)
    return path + "*"


def layers():
    return [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.2), keras.layers.RandomBrightness(0.3)]


def read(pattern, augment="default", **kwargs):
    augment = {"image": layers()} if augment == "default" else augment
    return read_tfrecords(pattern, batch_size=BATCH, augment=augment, **{"shard": ShardOptions(), **kwargs})


def images(dataset) -> list[np.ndarray]:
    return [batch["image"].numpy() for batch in dataset]


def test_the_same_seed_gives_the_same_images(pattern):
    first, again = images(read(pattern, seed=3)), images(read(pattern, seed=3))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, images(read(pattern, seed=4)))


def test_rows_steps_and_epochs_differ(pattern):
    dataset = read(pattern)
    epochs = np.concatenate([np.concatenate(images(dataset)) for _ in range(2)])
    assert len(np.unique(epochs.reshape(2 * ROWS, -1), axis=0)) == 2 * ROWS


def test_workers_differ(pattern):
    parts = [np.concatenate(images(read(pattern, shard=ShardOptions(2, index)))) for index in range(2)]
    rows = np.concatenate(parts)
    assert [len(part) for part in parts] == [ROWS // 2] * 2
    assert len(np.unique(rows.reshape(ROWS, -1), axis=0)) == ROWS


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_draws_what_it_would_have_drawn(pattern):
    whole = read(pattern, shuffle=True)
    _, second, third = images(whole), images(whole), images(whole)
    resumed = read(pattern, shuffle=True)
    tfdist.data.position(resumed).move_to(1, 5)
    np.testing.assert_array_equal(images(resumed), second[5:])
    np.testing.assert_array_equal(images(resumed), third)


PROGRAM = """
import sys, keras, numpy as np, tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[2]))
from tests.data.test_augmentation import images, read
options = tf.data.Options()
options.threading.private_threadpool_size = int(sys.argv[2])
np.save(sys.argv[3], images(read(sys.argv[1], seed=5).with_options(options)))
"""


def test_the_number_of_threads_changes_nothing(pattern, tmp_path):
    """Nor does another process, whose layers had other seeds."""
    for threads in ("1", "6"):
        command = [sys.executable, "-c", PROGRAM, pattern, threads, str(tmp_path / threads)]
        subprocess.run(command, check=True, timeout=120, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
    one, six = np.load(tmp_path / "1.npy"), np.load(tmp_path / "6.npy")
    np.testing.assert_array_equal(one, six)
    np.testing.assert_array_equal(one, images(read(pattern, seed=5)))


def test_a_flip_is_a_flip(pattern):
    """Values are those of the picture or its mirror image, each about half of the time."""
    rows = np.concatenate(images(read(pattern, augment={"image": keras.layers.RandomFlip("horizontal", seed=1)})))
    flipped = [np.array_equal(row, PICTURE[:, ::-1]) for row in rows]
    assert all(np.array_equal(row, PICTURE) for row, was in zip(rows, flipped, strict=True) if not was)
    assert ROWS / 4 < sum(flipped) < 3 * ROWS / 4


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.RandomCrop(4, 4),
        keras.layers.RandomZoom(0.2),
        keras.layers.RandomTranslation(0.2, 0.2),
        keras.layers.RandomContrast(0.3),
        keras.layers.RandAugment(),
        keras.layers.RandomColorJitter(brightness_factor=0.2, contrast_factor=0.2),
        [keras.layers.Rescaling(1 / 255), keras.layers.GaussianNoise(1.0)],
        keras.layers.Rescaling(1 / 255),
        keras.Sequential([keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)]),
        keras.layers.Pipeline([keras.layers.RandomFlip(), keras.layers.RandomShear(0.2)]),
        keras.layers.RandomErasing(),
    ],
    ids=lambda layer: getattr(layer, "name", "noise"),
)
def test_layers_repeat_and_take_batches_without_rows(pattern, layer):
    """Nine workers for a last batch of one record, so most get none."""
    one, again = (np.concatenate(images(read(pattern, augment={"image": layer}))) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    is_random = not isinstance(layer, keras.layers.Rescaling)
    assert (len(np.unique(one.reshape(ROWS, -1), axis=0)) > 1) == is_random
    shares = [
        images(read_tfrecords(pattern, batch_size=9, shard=ShardOptions(3, index), augment={"image": layer}))
        for index in range(3)
    ]
    assert [len(share[-1]) for share in shares] == [0, 0, 1]
    assert {share[-1].shape[1:] for share in shares} == {one.shape[1:]}


def test_replicas_of_one_process_differ(pattern):
    """The host changes the global batch before it is cut."""
    strategy = tfdist.MirroredStrategy(["CPU:0"])
    (batch,) = [next(iter(strategy.experimental_distribute_dataset(read(pattern))))["image"]]
    assert len(np.unique(batch.numpy().reshape(BATCH, -1), axis=0)) == BATCH


def test_the_label_is_left_alone(pattern):
    dataset = read(pattern, label="y")
    assert np.concatenate([y.numpy() for _, y in dataset]).tolist() == list(range(ROWS))


def test_outside_of_a_data_set_layers_draw_as_ever(pattern):
    layer = keras.layers.RandomFlip(seed=1)
    picture = tf.constant(np.tile(PICTURE, (16, 1, 1, 1)), tf.float32)
    before = keras.layers.RandomFlip(seed=1)(picture, training=True)
    read(pattern, augment={"image": layer})
    np.testing.assert_array_equal(layer(picture, training=True), before)


@pytest.mark.parametrize(
    ("augment", "error", "said"),
    [
        ({"photo": keras.layers.RandomFlip()}, ValueError, r"\['image', 'y'\]. Received: augment with \['photo'\]"),
        ({"image": tf.image.flip_left_right}, TypeError, "must give a Keras layer"),
        ({"image": [keras.layers.RandomFlip(), 3]}, TypeError, "Received: augment={'image': 3}"),
        ({"image": keras.layers.MixUp()}, ValueError, "mixes rows"),
        ({"y": keras.layers.RandomFlip()}, ValueError, r"augment\['y'\] must be a layer .* shape \(None,\)"),
        ({"image": keras.layers.Dense(2)}, ValueError, "Make it a part of the model"),
    ],
    ids=["name", "function", "number", "mixing", "shape", "trained"],
)
def test_what_is_wrong_is_said_at_once(pattern, augment, error, said):
    with pytest.raises(error, match=said):
        read(pattern, augment=augment)
