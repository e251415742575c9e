"""A long job that is hit by a fault again and again ends with the weights of a quiet one, bit for bit.

pytest -m nightly tests/soak                           half an hour of faults
TFDIST_SOAK_EPOCHS=4 pytest -m nightly tests/soak      a few minutes
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.warm_processes import QUIET

pytestmark = [pytest.mark.nightly, pytest.mark.cluster, pytest.mark.timeout(3 * 3600)]

ROOT = Path(__file__).parent.parent.parent
WORKERS, ROWS = 3, 60_000
#: About half a minute each on two cores, without faults.
EPOCHS = int(os.environ.get("TFDIST_SOAK_EPOCHS", "30"))
FAULTS = ("kill a worker", "kill the chief", "stop a worker", "terminate a worker", "kill the launcher")
BETWEEN_SECONDS = (20.0, 60.0)
DEADLINE_SECONDS = 2.5 * 3600


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tfdist", "launch", f"--workers={WORKERS}", *options]
    command += ["-m", "tests.soak.train", str(folder), str(EPOCHS), str(ROWS)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **QUIET}, stdout=log, stderr=log)


def results(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "weights.npz") as found:
        return [found[name] for name in found.files]


def strike(fault: str, folder: Path, launcher: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """Whether there was anything to hit."""
    if fault == "kill the launcher":
        launcher.kill()
        return True
    victim = 0 if fault == "kill the chief" else chance.randrange(1, WORKERS)
    number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "terminate": signal.SIGTERM}[fault.split()[0]]
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.kill(int((folder / f"pid-{victim}").read_text()), number)
        return True
    return False


@pytest.mark.skipif("TFDIST_DATA_DIR" not in os.environ, reason="MNIST is in TFDIST_DATA_DIR")
def test_faults_for_half_an_hour(tmp_path: Path) -> None:
    quiet, hit = tmp_path / "quiet", tmp_path / "hit"
    quiet.mkdir()
    hit.mkdir()
    begun = time.monotonic()
    assert start(quiet).wait(DEADLINE_SECONDS) == 0, (quiet / "log").read_text()[-5000:]
    quiet_seconds, begun = time.monotonic() - begun, time.monotonic()

    chance, struck = random.Random(1), collections.Counter[str]()
    launcher = start(hit, "--max_restarts=1000")
    try:
        next_at = time.monotonic() + chance.uniform(*BETWEEN_SECONDS)
        while (code := launcher.poll()) != 0:
            assert time.monotonic() - begun < DEADLINE_SECONDS, f"after {struck}"
            if code is not None:
                assert code == -signal.SIGKILL, (hit / "log").read_text()[-5000:]
                launcher = start(hit, "--max_restarts=1000")
            elif time.monotonic() > next_at:
                next_at = time.monotonic() + chance.uniform(*BETWEEN_SECONDS)
                fault = chance.choice(FAULTS)
                struck[fault] += strike(fault, hit, launcher, chance)
            time.sleep(0.2)
    finally:
        launcher.kill()
        launcher.wait(60)
    print(f"quiet: {quiet_seconds:.0f} s; hit: {time.monotonic() - begun:.0f} s, {dict(struck)}")
    assert sum(struck.values()) >= EPOCHS / 4, "the job was hardly hit"
    for one, other in zip(results(hit), results(quiet), strict=True):
        np.testing.assert_array_equal(one, other)
