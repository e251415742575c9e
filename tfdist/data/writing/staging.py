"""Files that appear when they are complete: written in a hidden directory beside their place, then moved there.

The directory is called after the writer's machine and process. If that process dies, the next writer of the same files
removes what it left.

    what happens                    what is there
    while writing                   the hidden directory, in it files called *.part
    an exception                    nothing
    the process is killed           the hidden directory, until the next writer comes
    killed while files are moved    some shards, no index: readers say which ones are missing
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfdist.data.files.shard_files import ShardFiles
from tfdist.log import logger

_PART = ".part"
_ENDING = ".writing"


class Staging:
    """A hidden directory for the files of one writer.

    Attributes:
        directory: Its path.
    """

    def __init__(self, files: ShardFiles) -> None:
        self._files = files
        _remove_stale(files)
        mark = f"{_host()}.{os.getpid()}.{secrets.token_hex(4)}{_ENDING}"
        self.directory = os.path.join(files.directory, _beginning(files) + mark)
        self._lock: int | None = None
        with clear_errors(files.pattern):
            tf.io.gfile.makedirs(self.directory)
        if files.is_local:
            self._lock = os.open(self.directory, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def path(self, name: str) -> str:
        """Where a file is written; not called as its pattern asks, so that no reader takes it."""
        return os.path.join(self.directory, name + _PART)

    def publish(self, names: Sequence[str], index: str) -> None:
        """Moves files to their place and the index last; removes older ones before.

        Args:
            names: Of the files, without directory.
            index: The index' own, of which `path(index)` is there.
        """
        for name in (*names, index):
            self._sync(self.path(name))
        moved: list[str] = []
        try:
            # The index first: no reader must take it for that of the new files.
            for old in (index, *self._files.existing()):
                self._remove(old)
            for name in names:
                moved.append(name)
                self._move(name)
            self._sync(self._files.directory or ".")
            moved.append(index)
            self._move(index)
            self._sync(self._files.directory or ".")
        except BaseException:
            for name in moved:
                self._remove(name)
            raise
        self.discard()

    def discard(self) -> None:
        """Removes the directory and what is in it."""
        if tf.io.gfile.exists(self.directory):
            tf.io.gfile.rmtree(self.directory)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _move(self, name: str) -> None:
        tf.io.gfile.rename(self.path(name), os.path.join(self._files.directory, name), overwrite=True)

    def _remove(self, name: str) -> None:
        path = os.path.join(self._files.directory, name)
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)

    def _sync(self, path: str) -> None:
        """Waits until the disk has it: a file renamed before its bytes are there is empty after a power cut."""
        if not self._files.is_local:
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def clear_errors(pattern: str) -> Iterator[None]:
    """Makes of errors of the disk such that say what to do.

    Raises:
        OSError: For every error of the file system, with the operating system's number where it is known.
    """
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        if isinstance(error, FileExistsError) or getattr(error, "is_clear", False):
            raise
        raise _clear(error, pattern) from error


def _clear(error: Exception, pattern: str) -> OSError:
    said = str(error)
    number, remedy = errno.EIO, "Repair what it says, then write again."
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in said:
        number, remedy = errno.ENOSPC, "Free space or write elsewhere; a set of compressed shards is smaller."
    elif "Too many open files" in said:
        number, remedy = errno.EMFILE, "Use fewer shards, or pass num_records, or raise `ulimit -n`."
    elif isinstance(error, tf.errors.PermissionDeniedError | PermissionError):
        number, remedy = errno.EACCES, "Write to a directory that is yours."
    clear = OSError(number, f"The shards can't be written: {said}. Received: pattern={pattern!r}. {remedy}")
    clear.is_clear = True  # type: ignore[attr-defined]
    return clear


def _beginning(files: ShardFiles) -> str:
    return "." + os.path.basename(files.pattern).replace("*", "") + "."


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname())


def _remove_stale(files: ShardFiles) -> None:
    """Removes directories of writers of the same files that this machine ran and that are dead."""
    directory = files.directory or "."
    if not tf.io.gfile.isdir(directory):
        return
    shape = re.compile(re.escape(_beginning(files) + _host()) + r"\.(\d+)\.[0-9a-f]+" + re.escape(_ENDING))
    for name in tf.io.gfile.listdir(directory):
        match = shape.fullmatch(name.rstrip("/"))
        path = os.path.join(files.directory, name)
        if match and not _is_alive(int(match[1])) and not (files.is_local and _is_locked(path)):
            logger.warning("removing %s, which a writer left that was killed", path)
            tf.io.gfile.rmtree(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_locked(path: str) -> bool:
    """Whether a writer holds it: one in another container may live under a number that is unknown here."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
