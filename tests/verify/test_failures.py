"""What can't be compared is said, with the script's own traceback, and exit code 2."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tfdist.cli.main import main
from tfdist.verify.options import VerifyError, VerifyOptions
from tfdist.verify.procedure import verify
from tfdist.verify.progress import Progress
from tfdist.verify.report import report
from tfdist.verify.result import Verdict

pytestmark = pytest.mark.cluster
SCRIPTS = Path(__file__).parent / "scripts"


def run(script: str, **options):
    shown = io.StringIO()
    result = verify(VerifyOptions(str(SCRIPTS / f"{script}.py"), **options), Progress(shown))
    return result, report(result), shown.getvalue()


def test_a_script_that_fails_on_workers_only(tmp_path):
    kept = tmp_path / "kept"
    result, text, shown = run("fail_on_workers", steps=2, keep=kept)
    assert result.verdict is Verdict.NOT_RUN
    assert re.match(r"COULD NOT RUN: 2 workers, worker \d: exit code 1\n    Traceback", text)
    assert text.splitlines()[-1] == "    ValueError: planted failure"
    assert "runpy" not in text  # the traceback begins in the script
    assert re.search(r"one device +2 of 2 steps +\d+\.\d s\n +2 workers +0 of 2 steps", shown)
    assert (kept / "one-device" / "worker-0" / "records.jsonl").exists()
    assert "planted failure" in "".join(log.read_text() for log in kept.glob("workers-*.log"))


def test_a_script_without_fit():
    result, text, _ = run("fail_without_fit")
    assert result.verdict is Verdict.NOT_RUN
    assert "model.fit and model.train_on_batch" in text
    assert "put it into a train_step" in text


def test_an_asynchronous_strategy():
    result, text, _ = run("fail_asynchronous")
    assert result.verdict is Verdict.NOT_RUN
    assert "Received: ParameterServerStrategy" in text


def test_a_run_that_takes_too_long():
    result, text, _ = run("fail_never_ends", timeout_seconds=6)
    assert result.verdict is Verdict.NOT_RUN
    assert "one device: not done after 6 s (--timeout_seconds)" in text
    assert "fail_never_ends.py" in text  # where it was


def test_ctrl_c_ends_all_of_it(tmp_path, wait_until):
    command = [sys.executable, "-m", "tfdist", "verify", f"--keep={tmp_path}", str(SCRIPTS / "fail_never_ends.py")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(lambda: "waiting" in read(tmp_path / "one-device.log"))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert said.endswith("tfdist verify: ended by SIGINT\n")


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_the_command_line(tmp_path, capsys):
    """Exit code, report on stdout, progress on stderr, and the result for machines."""
    path = tmp_path / "result.json"
    arguments = ["--steps=5", f"--json={path}", str(SCRIPTS / "bad_batch_size.py")]
    assert main(["verify", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("DIFFERENT from step 1 on")
    assert "2 workers" in shown.err
    found = json.loads(path.read_text())
    assert (found["verdict"], found["exit_code"]) == ("different", 1)
    assert found["data"] == {"step": 1, "expected": 16, "received": 32, "common": 16}
    assert found["finding"]["cause"] == "per_replica_batch_size"
    assert found["finding"]["confidence"] == "certain"
    (where,) = found["finding"]["where"]
    assert where == "strategy.num_replicas_in_sync at tests/verify/scripts/bad_batch_size.py:9"


def test_a_directory_that_holds_something_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(VerifyError, match="must be empty or new"):
        run("clean_mlp", keep=tmp_path)
