"""Full disks and read-only ones: a clear error or a warning, and the checkpoints before are whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfdist
from tests.helpers.disks import make_read_only, small_disk
from tfdist.checkpoint.files import CheckpointFiles
from tfdist.errors import CheckpointError

pytestmark = pytest.mark.unit

#: A checkpoint of the model below is 0.7 MB.
SIZE, UNITS = "6m", 400


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


def fit(directory: Path, epochs: int, **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((UNITS,)), keras.layers.Dense(UNITS, use_bias=False)])
    model.compile("sgd", "mse")
    x = np.ones((8, UNITS), "float32")
    checkpoint = tfdist.callbacks.Checkpoint(directory, keep=10, **options)
    return model.fit(x, x, batch_size=8, epochs=epochs, verbose=0, callbacks=[checkpoint])


def whole(directory: Path) -> list[str]:
    files = CheckpointFiles(directory, 10)
    assert all(files.problem_of(name) is None for name in files.names())
    return files.names()


def test_a_full_disk_stops_training(disk):
    expected = r"(?s)has room for 0.7 MB.*No space left.*Make room.*epoch-0001"
    with pytest.raises(CheckpointError, match=expected) as error:
        fit(disk / "run", epochs=30)
    assert len(whole(disk / "run")) >= 2
    assert str(disk / "run") in str(error.value)


def test_or_training_goes_on_with_a_warning(disk, caplog):
    with caplog.at_level(logging.WARNING):
        history = fit(disk / "run", epochs=30, on_error="warn")
    assert history.epoch == list(range(30))
    assert "training goes on without a new checkpoint" in caplog.text and "No space left" in caplog.text
    names = whole(disk / "run")
    assert len(names) >= 2
    assert history.history == fit(disk / "run", epochs=30, on_error="warn").history


def test_a_full_disk_leaves_nothing_half_written(disk):
    files = CheckpointFiles(disk / "run", 10)
    name = files.write(0, 1, {"a": bytes(4_000_000)})
    with pytest.raises(CheckpointError, match="No space left"):
        files.write(0, 2, {"a": bytes(4_000_000)})
    assert [path.name for path in (disk / "run").iterdir()] == [name]
    assert files.problem_of(name) is None


def test_a_read_only_directory_is_said_before_the_first_step(disk):
    fit(disk / "run", epochs=1)
    assert make_read_only(disk)
    with pytest.raises(CheckpointError, match="Read-only file system"):
        fit(disk / "run", epochs=2)
    assert whole(disk / "run") == ["epoch-0001-step-000000"]


def test_a_read_only_directory_can_be_gone_on_from(disk, caplog):
    fit(disk / "run", epochs=1)
    assert make_read_only(disk)
    with caplog.at_level(logging.WARNING):
        history = fit(disk / "run", epochs=3, on_error="warn")
    assert history.epoch == [0, 1, 2]
    assert "Read-only file system" in caplog.text
