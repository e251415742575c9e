"""Disks of workers: only the chief's is written to, and when it is full all workers say so."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.cluster_runner import run_python
from tfdist.checkpoint.files import CheckpointFiles

pytestmark = pytest.mark.cluster


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`mount(name, *arguments)` mounts something on a folder."""
    made: list[Path] = []

    def do(name: str, *arguments: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(["mount", *arguments, folder], capture_output=True)
        if done.returncode:
            pytest.skip(f"mounting isn't allowed here: {done.stderr.decode()}")
        made.append(folder)
        return folder

    try:
        yield do
    finally:
        for folder in reversed(made):
            subprocess.run(["umount", folder], check=True)


def run(folder: Path, *arguments: object) -> None:
    command = ["-m", "tests.checkpoint.programs.worker_faults", *map(str, arguments)]
    run_python(command, workers=2, logs=folder / "logs", timeout_seconds=200)


def names(directory: Path) -> list[str]:
    files = CheckpointFiles(directory, 10)
    assert all(files.problem_of(name) is None for name in files.names())
    return files.names()


def test_only_the_chiefs_disk_is_written_to(tmp_path, mount):
    """The other worker sees the same directory, read-only, and goes on from it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    view = mount("view", "--bind", str(shared))
    subprocess.run(["mount", "-o", "remount,ro,bind", view], check=True)
    for epochs in (1, 2):
        run(tmp_path, shared, view, epochs)
    assert names(shared) == ["epoch-0002-step-000000", "epoch-0001-step-000000"]


def test_the_chiefs_full_disk_stops_all_workers(tmp_path, mount):
    small = mount("small", "-t", "tmpfs", "-o", "size=3m", "tmpfs")
    run(tmp_path, small / "run", small / "run", 20, "fails")
    assert 1 <= len(names(small / "run")) < 10
