"""Folders of checkpoints: written whole or not at all, checked before they are read, the oldest removed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tfdist.errors import CheckpointError
from tfdist.log import logger

MANIFEST = "manifest.json"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)(?:\.(\d+))?")
_WRITING, _DELETING = ".writing-", ".deleting-"
_CHUNK_BYTES = 1 << 22

#: Files by name; contents as bytes.
Files = Mapping[str, "bytes | memoryview"]
#: Of a file, as the manifest has it: its size and SHA-256.
Entry = dict[str, "int | str"]


class CheckpointFiles:
    """The checkpoints of one training, in a directory of their own.

    Args:
        directory: on a disk that all workers see; made if it isn't there.
        keep: how many whole ones stay.

    Raises:
        ValueError: keep is less than 1, or the directory isn't a path of this machine's file system.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int) -> None:
        if keep < 1:
            raise ValueError(f"Expected: keep of at least 1. Received: keep={keep}. Use for example 3.")
        if "://" in os.fspath(directory) or not os.fspath(directory):
            raise ValueError(
                "Expected: a directory of a mounted file system, whose renames are atomic. "
                f"Received: directory={os.fspath(directory)!r}. Mount the bucket, or use a local directory."
            )
        self.directory, self._keep = Path(directory), keep

    def prepare(self) -> None:
        """Make the directory, see that it can be written, and remove what killed saves have left.

        Raises:
            CheckpointError: it can't be written.
        """
        with self._explained():
            self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / f"{_WRITING}{uuid.uuid4().hex}"
            probe.mkdir()
            probe.rmdir()
            for pattern in (f"{_WRITING}*", f"{_DELETING}*"):
                for left in self.directory.glob(pattern):
                    shutil.rmtree(left, ignore_errors=True)

    def names(self) -> list[str]:
        """Of all checkpoints, whole or not, the newest first."""
        if not self.directory.is_dir():
            return []
        return sorted((one for one in os.listdir(self.directory) if _NAME.fullmatch(one)), key=_age, reverse=True)

    def newest_whole(self) -> str | None:
        """The name of the newest whole checkpoint; warns of broken ones that are newer."""
        for name in self.names():
            problem = self.problem_of(name)
            if problem is None:
                return name
            logger.warning("checkpoint %s is left out: %s", self.directory / name, problem)
        return None

    def problem_of(self, name: str, *, by_content: bool = True) -> str | None:
        """What is wrong with a checkpoint, with the file's name; None if it is whole.

        Args:
            name: of the checkpoint.
            by_content: whether to read the files, or only to look at their sizes.
        """
        folder = self.directory / name
        if folder.is_symlink():
            return "it is a symbolic link"
        try:
            if problem := _problem_of_kind(folder / MANIFEST):
                return f"{MANIFEST} {problem}"
            listed = json.loads((folder / MANIFEST).read_text())["files"]
            sizes = {file: (int(entry["size_bytes"]), str(entry["sha256"])) for file, entry in listed.items()}
        except FileNotFoundError:
            return f"{MANIFEST} is missing"
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return f"{MANIFEST} can't be read ({type(error).__name__}: {error})"
        for file, (size, digest) in sizes.items():
            if file != os.path.basename(file) or file in ("", os.curdir, os.pardir):
                return f"{MANIFEST} names {file!r}, which is no file of the checkpoint's folder"
            try:
                problem = _problem_of_file(folder / file, size, digest if by_content else None)
            except OSError as error:
                problem = f"can't be read ({error})"
            if problem:
                return f"{file} {problem}"
        return None

    def path(self, name: str, file: str) -> Path:
        """Where a checkpoint's file is."""
        return self.directory / name / file

    def new_folder(self) -> Path:
        """Where a checkpoint may be put together; it isn't there yet."""
        return self.directory / f"{_WRITING}{uuid.uuid4().hex}"

    def write(
        self,
        epoch: int,
        step: int,
        files: Files,
        *,
        folder: Path | None = None,
        add: Callable[[Path], Mapping[str, Entry]] | None = None,
    ) -> str:
        """Add a whole checkpoint, and remove old ones.

        Args:
            epoch: in which training goes on.
            step: batches of it that were used.
            files: contents by name.
            folder: a `new_folder()` in which others have begun to write; None for one of its own.
            add: puts more files into the folder, and says which.

        Returns:
            Its name, which ends in a number if there was one of this epoch and step.

        Raises:
            CheckpointError: the disk is full, say; nothing has changed then.
        """
        folder = folder or self.new_folder()
        with self._explained(sum(len(content) for content in files.values())):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                listed = {file: _write(folder / file, content) for file, content in files.items()}
                listed |= add(folder) if add is not None else {}
                _write(folder / MANIFEST, json.dumps({"format": 1, "files": listed}, indent=1).encode())
                flush_file(folder)
                name = self._rename(folder, f"epoch-{epoch:04}-step-{step:06}")
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self._remove_old()
        return name

    def _rename(self, folder: Path, name: str) -> str:
        # Never onto one that is there, which a process that is killed now would have harmed.
        taken = [_age(one)[2] for one in self.names() if _age(one)[:2] == _age(name)[:2]]
        name = f"{name}.{max(taken) + 1}" if taken else name
        os.rename(folder, self.directory / name)
        flush_file(self.directory)
        return name

    def _remove_old(self) -> None:
        whole = 0
        for name in self.names():
            if whole < self._keep:
                whole += self.problem_of(name, by_content=False) is None
                continue
            with contextlib.suppress(OSError):
                gone = self.directory / f"{_DELETING}{uuid.uuid4().hex}"
                os.rename(self.directory / name, gone)
                shutil.rmtree(gone, ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self, size_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            room = f" and has room for {size_bytes / 1e6:.1f} MB" if size_bytes else ""
            kept = ", ".join(self.names()[: self._keep]) or "none"
            raise CheckpointError(
                f"Expected: a checkpoint directory that can be written{room}. "
                f"Received: {type(error).__name__}: {error}, for directory={str(self.directory)!r}. Make room, lower "
                'keep=, or name another directory; on_error="warn" trains on without. '
                f"Checkpoints that are there and unharmed: {kept}."
            ) from error


def _age(name: str) -> tuple[int, int, int]:
    found = _NAME.fullmatch(name)
    epoch, step, again = found.groups() if found else (0, 0, 0)
    return int(epoch), int(step), int(again or 0)


def _write(path: Path, content: bytes | memoryview) -> Entry:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def describe(path: Path) -> Entry:
    """Of a file that is there."""
    return {"size_bytes": path.stat().st_size, "sha256": _sha256(path)}


def flush_file(path: Path) -> None:
    """Return when a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _problem_of_kind(path: Path) -> str | None:
    """A link may lead out of the folder, and reading a pipe or a device may never end."""
    kind = path.lstat().st_mode
    return None if stat.S_ISREG(kind) else "is a symbolic link" if stat.S_ISLNK(kind) else "is no regular file"


def _problem_of_file(path: Path, size: int, digest: str | None) -> str | None:
    if not path.exists():
        return "is missing"
    if problem := _problem_of_kind(path):
        return problem
    found = path.stat().st_size
    if found != size:
        return f"has {found} bytes, not {size}"
    if digest is None:
        return None
    return None if _sha256(path) == digest else "has another SHA-256 than when it was written"


def _sha256(path: Path) -> str:
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()
