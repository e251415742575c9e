"""Training in an elastic job: what hosts that come and go do to the weights, which is nothing but rounding."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.launch.programs.elastic_train import BATCH, EPOCHS, STEPS

pytestmark = pytest.mark.cluster


def start(
    folder: Path, *options: str, arguments: tuple[str, ...] = (), inside: tuple[str, ...] = ()
) -> subprocess.Popen:
    """Launch a job; `inside` is what its command stands behind."""
    folder.mkdir(exist_ok=True)
    command = [*inside, sys.executable, "-m", "tfdist", "launch", "--env=CUDA_VISIBLE_DEVICES=-1", *options]
    command += ["-m", "tests.launch.programs.elastic_train", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def record(folder: Path) -> list[tuple[int, int, int]]:
    """Workers, epoch and batch of each step, in the order in which they were made."""
    path = folder / "record"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(workers), int(epoch), int(batch)) for workers, epoch, batch in map(str.split, lines)]


def made(folder: Path) -> list[tuple[int, int]]:
    """Workers and batch of each step."""
    return [(workers, batch) for workers, _, batch in record(folder)]


def finish(process: subprocess.Popen) -> str:
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return err


@pytest.mark.parametrize(
    "more",
    [
        # The other shows all of it, and that batches are cut.
        pytest.param([], id="larger_batches", marks=pytest.mark.nightly),
        pytest.param(["--elastic_accumulation"], id="micro_batches"),
    ],
)
def test_one_worker_then_two_then_one(more: list[str], tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """The loss and the weights are those of a quiet job of one worker, and each step is made once.

    To 1e-5 and not to the bit: the gradients of a batch are added up in another order when two workers have half of it
    each. In float32 that is some 1e-7 of each sum, which later steps of Adam carry on.
    """
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost\n")
    options = ["--min_workers=1", "--max_workers=2", f"--hosts_file={hosts}", "--max_restarts=0"]
    options += ["--discovery_seconds=0.2", "--settle_seconds=0.2", *more]
    process = start(tmp_path / "elastic", *options, arguments=("--slowly",))
    try:
        # Two workers make the last batch of an epoch too, which has fewer rows.
        for workers, batch, listed in ((1, 1, "localhost\n127.0.0.2\n"), (2, STEPS - 1, "127.0.0.2\n")):
            wait_until(
                lambda step=(workers, batch): step in made(tmp_path / "elastic") or process.poll() is not None, 120
            )
            hosts.write_text(listed)
        err = finish(process)
    finally:
        process.kill()
        process.communicate()
    finish(start(tmp_path / "quiet", "--workers=1"))
    steps = record(tmp_path / "elastic")
    assert [(epoch, batch) for _, epoch, batch in steps] == [(e, b) for e in range(EPOCHS) for b in range(STEPS)]
    most = max(map(int, (tmp_path / "elastic" / "rows").read_text().split()))
    assert most == (BATCH // 2 if more else BATCH)
    sizes = [workers for workers, *_ in steps]
    assert [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before] == [1, 2, 1], err
    found, expected = (dict(np.load(tmp_path / name / "result.npz")) for name in ("elastic", "quiet"))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
