"""Checkpoints are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkpoint.programs.save_forever import KEEP, SIZES
from tfdist.checkpoint.files import MANIFEST, CheckpointFiles

pytestmark = pytest.mark.unit

CONTENT = {"a.npz": b"a" * 1000, "b.json": b"{}"}
SAVES_KILLED, NIGHTLY_SAVES_KILLED = 10, 100


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    return CheckpointFiles(tmp_path / "checkpoints", 3)


def test_the_newest_stay_in_the_order_of_training(files):
    for epoch, step in [(0, 5), (0, 10), (1, 0), (1, 5), (10, 0)]:
        files.write(epoch, step, CONTENT)
    assert files.names() == ["epoch-0010-step-000000", "epoch-0001-step-000005", "epoch-0001-step-000000"]
    assert files.newest_whole() == "epoch-0010-step-000000"
    assert sorted(os.listdir(files.directory)) == sorted(files.names())
    assert files.path(files.names()[0], "a.npz").read_bytes() == CONTENT["a.npz"]


def test_one_that_is_there_is_never_replaced(files):
    """A process that is killed at the wrong moment would have neither."""
    first = files.write(1, 5, CONTENT)
    second = files.write(1, 5, {"a.npz": b"other"})
    assert files.newest_whole() == second != first
    assert files.problem_of(first) is None


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("a.npz", lambda path: path.write_bytes(b"a" * 999 + b"b"), "a.npz has another SHA-256"),
        ("a.npz", lambda path: path.write_bytes(b"a" * 999), "a.npz has 999 bytes, not 1000"),
        ("b.json", lambda path: path.unlink(), "b.json is missing"),
        (MANIFEST, lambda path: path.unlink(), "manifest.json is missing"),
        (MANIFEST, lambda path: path.write_bytes(path.read_bytes()[:30]), "manifest.json can't be read"),
        (MANIFEST, lambda path: path.write_text("[]"), "manifest.json can't be read"),
    ],
)
def test_a_broken_one_is_left_out_with_a_warning(files, caplog, file, damage, said):
    good = files.write(0, 5, CONTENT)
    bad = files.write(0, 10, CONTENT)
    damage(files.path(bad, file))
    with caplog.at_level(logging.WARNING):
        assert files.newest_whole() == good
    assert bad in caplog.text and said in caplog.text


def test_broken_ones_do_not_count_as_kept(files):
    names = [files.write(0, step, CONTENT) for step in range(3)]
    for name in names[1:]:
        files.path(name, "a.npz").unlink()
    files.write(0, 3, CONTENT)
    assert files.problem_of(names[0]) is None


def test_what_killed_saves_left_is_removed(files):
    name = files.write(0, 5, CONTENT)
    for left in (".writing-1", ".deleting-2"):
        shutil.copytree(files.directory / name, files.directory / left)
    files.prepare()
    assert os.listdir(files.directory) == [name]


def test_the_manifest_says_what_is_there(files):
    name = files.write(0, 5, CONTENT)
    listed = json.loads(files.path(name, MANIFEST).read_text())["files"]
    assert {file: entry["size_bytes"] for file, entry in listed.items()} == {"a.npz": 1000, "b.json": 2}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"keep": 0}, "keep=0"),
        ({"directory": "gs://bucket/run"}, "Mount the bucket"),
    ],
)
def test_what_is_refused(tmp_path, options, expected):
    with pytest.raises(ValueError, match=expected):
        CheckpointFiles(**{"directory": tmp_path, "keep": 3, **options})


def kill_saves(directory: Path, times: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"moments of seed {seed}")
    moments = random.Random(seed)
    files = CheckpointFiles(directory, KEEP)
    interrupted = 0
    for _ in range(times):
        command = [sys.executable, "-m", "tests.checkpoint.programs.save_forever", str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [process.stdout.readline().strip()]
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
            said += process.stdout.read().split()
        interrupted += any(name.startswith(".writing-") for name in os.listdir(directory))
        # A save may be done and not have been said.
        whole = [name for name in files.names() if files.problem_of(name) is None]
        assert whole[0] >= said[-1]
        assert len(whole) >= min(KEEP, len(said))
        assert set(said[-KEEP + 1 :]) <= set(whole)
        for name in whole:
            byte = int(name.split("-")[-1]) % 256
            assert files.path(name, "state.json").read_bytes() == bytes([byte]) * SIZES["state.json"]
    assert interrupted, "no save was killed in the middle; a test of nothing"


def test_killed_saves_cost_no_checkpoint(tmp_path):
    kill_saves(tmp_path / "checkpoints", SAVES_KILLED)


@pytest.mark.nightly
def test_saves_killed_many_times_cost_no_checkpoint(tmp_path):
    kill_saves(tmp_path / "checkpoints", NIGHTLY_SAVES_KILLED)
