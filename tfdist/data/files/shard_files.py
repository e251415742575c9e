"""Names of a data set's files: `train-*.tfrecord` stands for `train-00000-of-00004.tfrecord` and so on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import tensorflow as tf

from tfdist.data.files.index import DatasetIndex, index_path
from tfdist.errors import DataError

# Names hold the count in five digits.
MOST_SHARDS = 99_999
_ENDING = "-*.tfrecord"


@dataclass(frozen=True)
class ShardFiles:
    """The files that a pattern stands for.

    Args:
        pattern: Path with one `*` in its last part, for the shard's number and their count; without it, `-*.tfrecord`
            is added.

    Raises:
        TypeError: If it is no path.
        ValueError: If it has other special characters, or a `*` elsewhere.
    """

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str | os.PathLike):
            raise TypeError(f"pattern must be a path. Received: pattern={self.pattern!r}. Give 'dir/train-*.tfrecord'.")
        pattern = os.fspath(self.pattern)
        if not os.path.basename(pattern) or re.search(r"[?\[\]{}]|\*.*\*|\*.*/", pattern):
            raise ValueError(
                "pattern must be a path with at most one *, in the name of the file. "
                f"Received: pattern={pattern!r}. Write for example 'dir/train-*.tfrecord'."
            )
        object.__setattr__(self, "pattern", pattern if "*" in pattern else pattern + _ENDING)

    @property
    def directory(self) -> str:
        """Where the files lie; "" is the working directory."""
        return os.path.dirname(self.pattern)

    @property
    def index(self) -> str:
        """Where the index of the files lies."""
        return index_path(self.pattern)

    @property
    def is_local(self) -> bool:
        """Whether the operating system knows the path."""
        return "://" not in self.pattern

    def name(self, shard: int, num_shards: int) -> str:
        """Of one file, without its directory."""
        return os.path.basename(self.pattern).replace("*", f"{shard:05d}-of-{num_shards:05d}")

    def existing(self) -> list[str]:
        """Names of the files that there are, of whatever count, sorted."""
        before, after = map(re.escape, os.path.basename(self.pattern).split("*"))
        shape = re.compile(rf"{before}\d{{5}}-of-\d{{5}}{after}")
        directory = self.directory or "."
        found = tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []
        return sorted(name for name in found if shape.fullmatch(name))

    def check_free(self, *, overwrite: bool) -> None:
        """Refuses to write where there are files.

        Raises:
            FileExistsError: If there are shards and they are not to be overwritten.
            DataError: If the index there is of other files.
        """
        existing = self.existing()
        if existing and not overwrite:
            raise FileExistsError(
                f"No shards must be there yet. Received: pattern={self.pattern!r}, {len(existing)} files, the first is "
                f"{os.path.join(self.directory, existing[0])}. Choose another name, or "
                "pass overwrite=True (--overwrite)."
            )
        self._check_index(existing)

    def _check_index(self, existing: list[str]) -> None:
        if not tf.io.gfile.exists(self.index):
            return
        described = {shard.name for shard in DatasetIndex.load(self.index).shards} - set(existing)
        others = sorted(name for name in described if tf.io.gfile.exists(os.path.join(self.directory, name)))
        if others:
            raise DataError(
                f"{self.index}: expected the index of {self.pattern}. Received: that of {len(others)} other files, the "
                f"first is {others[0]}. Choose a name with another beginning, or another directory."
            )


def as_glob(pattern: str) -> str:
    """Returns the glob pattern that finds what a writer wrote; one that finds files by itself stays as it is."""
    if "*" in pattern or tf.io.gfile.glob(pattern):
        return pattern
    try:
        as_written = ShardFiles(pattern).pattern
    except ValueError:
        return pattern
    return as_written if tf.io.gfile.glob(as_written) else pattern
