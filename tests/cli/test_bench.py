"""`tfdist bench`, as a person types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tfdist

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str, cwd: Path = ROOT, path: Path = ROOT, seconds: float = 280) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tfdist", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
    )


@pytest.mark.unit
def test_the_list():
    done = bench()
    assert done.returncode == 0, done.stderr
    for said in ("  scaling      examples/s and efficiency", "min; needs root, iproute2", "  step_overhead  "):
        assert said in done.stdout


@pytest.mark.unit
@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (("scalling",), 2, "Unknown benchmark 'scalling'. Did you mean scaling?"),
        (("--rounds=3",), 2, "The benchmark's name comes first. Received: --rounds=3."),
        (("scaling", "--rouns=3"), 2, "Unknown option --rouns. Did you mean --rounds?"),
        (("scaling", "--rounds=0"), 2, "--rounds must be a positive integer. Received: rounds='0'"),
        (("scaling", "--rows=0"), 2, "--rows: Expected: numbers above 0. Received: rows=0."),
        (("allreduce", "--megabytes=1,abc"), 2, "--megabytes: Expected: numbers with commas between them. Received: "),
        (("start_up", "--workers=1.5"), 2, "--workers: Expected: whole numbers with commas between them. Received: "),
        (("scaling", "mlp"), 2, "takes options only. Received: mlp."),
        (("scaling", "--contenders=me"), 2, "--contenders: Expected: some of stock tf.distribute loop, "),
        (
            ("scaling", "--contenders=torch DDP", "--torch_python=/no/python"),
            1,
            "torch is not installed for --torch_python",
        ),
    ],
)
def test_what_is_wrong_is_said(arguments, code, said):
    done = bench(*arguments)
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.unit
def test_help_of_a_benchmark():
    done = bench("scaling", "--help")
    assert done.returncode == 0
    assert "--hidden=...\n      Units of the hidden layers. Default: 1024,1024." in done.stdout
    assert "--torch_python=..." in done.stdout


@pytest.mark.unit
def test_a_package_without_its_checkout_says_so(tmp_path):
    shutil.copytree(Path(tfdist.__file__).parent, tmp_path / "tfdist", ignore=shutil.ignore_patterns("__pycache__"))
    done = bench(cwd=tmp_path, path=tmp_path)
    assert done.returncode == 1
    assert "Expected: the folder benchmarks/ of tfdist's repository" in done.stderr
    assert str(tmp_path) in done.stderr and "Clone the repository" in done.stderr


@pytest.mark.unit
def test_a_script_gets_its_own_options():
    done = bench("step_overhead", "--help")
    assert done.returncode == 0
    assert "--replicas" in done.stdout


@pytest.mark.cluster
def test_start_up_runs(tmp_path):
    """One contender is there, one is not."""
    contenders = "--contenders=tfdist fit,torch DDP"
    done = bench("start_up", "--quick", contenders, "--torch_python=/no/python", f"--output={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch DDP: left out, torch is not installed for --torch_python. Remedy: pip install torch" in done.stderr
    assert "round 1 of 1: tfdist fit, 1 worker: imported " in done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["command"] == ("tfdist bench start_up --quick '--contenders=tfdist fit,torch DDP' --torch_python=PATH")
    assert found["baseline"] == "tfdist fit"
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert found["versions"]["here"]["tensorflow"].startswith("2.")
    by_key = {(row["contender"], row["quantity"]): row["median"] for row in found["rows"]}
    imported, connected, first = (by_key["tfdist fit", name] for name in ("imported", "connected", "first_step"))
    assert 0 < imported <= connected <= first
    assert [one["contender"] for one in found["missing"]] == ["torch DDP"]


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_all_benchmarks_run(tmp_path):
    done = bench("all", "--quick", cwd=tmp_path, seconds=2900)
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.parent.name for path in tmp_path.glob("bench_results/*/results.json")}
    assert {"allreduce", "fit_step", "scaling", "start_up", "memory"} <= written
