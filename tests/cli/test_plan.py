"""`tfdist plan`, as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

JOB = ("--params=1.2e9", "--hosts=64", "--gpus_per_host=8", "--bandwidth=100Gbit")


def tfdist_plan(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tfdist", "plan", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_plan_names_a_strategy_and_the_bottleneck(tmp_path):
    path = tmp_path / "plan.json"
    done = tfdist_plan(*JOB, f"--json={path}")
    assert done.returncode == 0, done.stderr
    assert "512 devices on 64 hosts; a step on one device: 492 ms (estimated" in done.stdout
    assert "Take LocalSGDStrategy (local SGD, every 16 steps): " in done.stdout
    assert done.stdout.endswith("What holds it up: network.\n")
    written = json.loads(path.read_text())
    assert written["best"] == "local SGD, every 16 steps"
    by_method = {one["method"]: one for one in written["predictions"]}
    # 2 * 63 / 64 of 4.8 GB.
    assert by_method["all-reduce"]["sent_bytes"] == pytest.approx(9.45e9)


def test_a_plot(tmp_path):
    path = tmp_path / "plan.png"
    done = tfdist_plan(*JOB, f"--plot={path}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert done.returncode == 1
        assert done.stderr == (
            "tfdist plan: Expected: matplotlib, which draws. Received: none. pip install 'tfdist[plot]'\n"
        )
    else:
        assert done.returncode == 0, done.stderr
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options, code, said",
    [
        (JOB[1:], 2, "--params must be given. Write for example: tfdist plan --params=1.2e9"),
        ((*JOB, "--bandwidth=fast"), 2, "--bandwidth: Expected: bits or bytes a second such as 100Gbit"),
        ((*JOB, "--hosts=0"), 2, "--hosts must be an integer in the range [1, 10000]. Received: hosts='0'"),
        ((*JOB, "--failure=3h"), 2, "Unknown option --failure. Did you mean --failures?"),
        ((*JOB, "train.py"), 2, "takes options only. Received: train.py"),
        ((*JOB, "--json=/nowhere/plan.json"), 2, "--json: Expected: a file to write to."),
        (("--params=1e12", "--hosts=1", "--bandwidth=1Gbit", "--device_memory=80GB"), 1, "Use more devices or a"),
    ],
)
def test_what_is_wrong_is_said(options, code, said):
    done = tfdist_plan(*options)
    assert done.returncode == code
    assert said in done.stderr


def test_no_tensorflow_is_needed():
    """A plan is made on a laptop; NumPy isn't needed either."""
    loaded = "import sys; from tfdist.cli.main import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded, "plan", *JOB], capture_output=True, text=True, timeout=60)
    assert "'tfdist.planning.plans'" in done.stdout
    assert "'tensorflow'" not in done.stdout and "'numpy'" not in done.stdout
