"""Parts that several processes write, made one set of files, and read in other parts."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdist.checkpoint import shards
from tfdist.checkpoint.files import CheckpointFiles
from tfdist.checkpoint.shards import Piece, Source, merge, write_part
from tfdist.errors import CheckpointError

pytestmark = pytest.mark.unit

TABLE = np.arange(300 * 8, dtype="float32").reshape(300, 8)


def piece(place: str, array: np.ndarray, *part: slice) -> Piece:
    return Piece(place, array.shape, part, tf.constant(array[part]))


def halves() -> list[list[Piece]]:
    """Of two processes: a table by columns, and what only the first writes."""
    rows, number = slice(0, 300), np.array(3, "int64")
    return [
        [piece("table/vars/0", TABLE, rows, slice(0, 4)), Piece("count/vars/0", (), (), tf.constant(number))],
        [piece("table/vars/0", TABLE, rows, slice(4, 8))],
    ]


def write(folder: Path, parts: list[list[Piece]]) -> dict[str, dict[str, int | str]]:
    for worker, pieces in enumerate(parts):
        write_part(folder, worker, pieces)
    return merge(folder, len(parts), threading.Event())


def test_other_parts_are_read_than_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 64 * 4 * 4)  # 64 rows of four numbers
    assert [one.part[0].stop for one in halves()[0][0].blocks()] == [64, 128, 192, 256, 300]
    files = write(tmp_path, halves())
    names = ["weights.data-00000-of-00002", "weights.data-00001-of-00002", "weights.index"]
    assert sorted(files) == sorted(one.name for one in tmp_path.iterdir()) == names
    source = Source(tmp_path)
    assert source.shapes == {"table/vars/0": (300, 8), "count/vars/0": ()}
    wanted = [(slice(60, 70), slice(2, 7)), (slice(0, 300), slice(0, 8)), (slice(299, 300), slice(7, 8))]
    for part, found in zip(wanted, source.read("table/vars/0", wanted), strict=True):
        np.testing.assert_array_equal(found, TABLE[part])
    assert source.whole("count/vars/0") == 3
    # Without tfdist.
    np.testing.assert_array_equal(tf.train.load_checkpoint(str(tmp_path / "weights")).get_tensor("table/vars/0"), TABLE)


def test_a_process_may_have_nothing_to_write(tmp_path: Path) -> None:
    files = write(tmp_path, [[], [piece("table/vars/0", TABLE, slice(0, 300), slice(0, 8))], []])
    assert sorted(files) == ["weights.data-00000-of-00001", "weights.index"]
    np.testing.assert_array_equal(Source(tmp_path).whole("table/vars/0"), TABLE)


def test_the_manifest_has_their_sizes_and_sums(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, keep=2)
    folder = files.new_folder()
    write_part(folder, 1, halves()[1])

    def add(folder: Path) -> dict[str, dict[str, int | str]]:
        write_part(folder, 0, halves()[0])
        return merge(folder, 2, threading.Event())

    name = files.write(0, 5, {"state.json": b"{}"}, folder=folder, add=add)
    assert files.problem_of(name) is None
    data = files.path(name, "weights.data-00001-of-00002")
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert "weights.data-00001-of-00002 has another SHA-256" in str(files.problem_of(name))
    with pytest.raises(tf.errors.DataLossError, match="Checksum does not match"):
        Source(data.parent).read("table/vars/0", [(slice(200, 300), slice(4, 8))])


def test_what_another_process_could_not_write_is_said(tmp_path: Path) -> None:
    """And there is no checkpoint then."""
    files = CheckpointFiles(tmp_path, keep=2)
    folder = files.new_folder()
    folder.mkdir()
    (folder / "part-1.data-00000-of-00001.tempstate").mkdir()
    blocked = folder / "part-1.index"
    blocked.mkdir()
    with pytest.raises(OSError, match="part-1"):
        write_part(folder, 1, halves()[1])

    def add(folder: Path) -> dict[str, dict[str, int | str]]:
        write_part(folder, 0, halves()[0])
        return merge(folder, 2, threading.Event())

    with pytest.raises(CheckpointError, match=r"Expected: worker 1 to write its part.*Received: OSError"):
        files.write(0, 5, {}, folder=folder, add=add)
    assert files.names() == []
    assert not folder.exists()


def test_a_process_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path, 0, halves()[0])
    over = threading.Event()
    over.set()
    with pytest.raises(CheckpointError, match=r"worker 1 to write its part.*Received: nothing\. All"):
        merge(tmp_path, 2, over)
    monkeypatch.setattr(shards, "_PATIENCE_SECONDS", 0.01)
    with pytest.raises(CheckpointError, match=r"Received: nothing for 0 s\. All workers must see the directory"):
        merge(tmp_path, 2, threading.Event())


def test_an_index_that_names_more_than_there_is_is_refused(tmp_path: Path) -> None:
    """As of a checkpoint that somebody has made to fill the memory."""
    write(tmp_path, halves())
    data = tmp_path / "weights.data-00000-of-00002"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match="expected: tensors of at most the 4900 bytes"):
        Source(tmp_path)
