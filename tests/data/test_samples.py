"""The digits that come with the package."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

import tfdist.data
from tfdist.data import ShardOptions

pytestmark = pytest.mark.unit


def read_all(split: str, shard: ShardOptions | None = None) -> tuple[np.ndarray, np.ndarray]:
    batches = list(tfdist.data.digits(split, batch_size=100, shard=shard))
    return tuple(np.concatenate([b[i].numpy() for b in batches]) for i in (0, 1))


def test_the_splits_hold_the_1797_images_of_the_uci_test_file():
    images, labels = (np.concatenate(a) for a in zip(read_all("train"), read_all("test"), strict=True))
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.float32
    assert images.min() == 0.0
    assert images.max() == 1.0
    # Images by digit and the mean pixel, as scikit-learn's load_digits() gives them.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.mean() * 16 == pytest.approx(4.884164579855314)


def test_pixels_and_labels_belong_together():
    """One image, known by eye: the first of the test split."""
    images, labels = read_all("test")
    pixels = (images[0, :, :, 0] * 16).astype(np.uint8)
    assert zlib.crc32(pixels.tobytes()) == 2602828620
    assert labels[0] == 7


def test_two_workers_get_each_image_once():
    whole = read_all("train")[0]
    halves = [read_all("train", ShardOptions(2, i))[0] for i in (0, 1)]
    assert sum(len(half) for half in halves) == len(whole) == 1437
    assert np.sum(np.concatenate(halves)) == pytest.approx(np.sum(whole))


def test_the_number_of_steps_is_known_to_the_progress_bar():
    for index in (0, 1):
        dataset = tfdist.data.digits("train", batch_size=64, shard=ShardOptions(2, index))
        assert dataset.cardinality() == 23
        assert len(list(dataset)) == 23


def test_credits_lie_beside_the_files():
    text = (Path(tfdist.data.__file__).parent / "digits" / "CREDITS.md").read_text()
    assert "CC BY 4.0" in text
    assert "Alpaydin" in text


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="Received: split='validation'"):
        tfdist.data.digits("validation", batch_size=8)
