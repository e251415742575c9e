"""Small disks of their own, in memory."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of `size` ("6m") at a new folder; skips the test where mounting isn't allowed."""
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip(f"mounting isn't allowed here: {made.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def make_read_only(disk: Path) -> bool:
    """Root writes whatever the modes are, but not on such a disk; False while a file is open for writing."""
    return not subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode
