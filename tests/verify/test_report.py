"""What a person reads and what a machine reads, from results made by hand."""

from __future__ import annotations

import io
import json

import pytest

from tfdist.verify.comparison import Comparison, DataDifference, Difference
from tfdist.verify.diagnosis import Finding
from tfdist.verify.options import VerifyOptions
from tfdist.verify.progress import Progress, recorded_steps
from tfdist.verify.report import report
from tfdist.verify.result import Result, Verdict

pytestmark = pytest.mark.unit

WORST = Difference(3, "variable", "dense/kernel", 0.125, 1e-3, 2.0, 0.5)
FINDING = Finding("cause", "the title", "The explanation.", "The remedy.", tuple(f"place {i}" for i in range(8)))


@pytest.fixture
def options(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("")
    return VerifyOptions(str(path))


def test_equal(options):
    comparison = Comparison(steps=20, variables=4, logs={"loss", "accuracy"}, worst_variable=WORST)
    text = report(Result(Verdict.EQUAL, options, comparison, inert=("drop",), notes=("noted",)))
    lines = text.splitlines()
    assert lines[0] == "EQUAL: 2 workers train as one device does."
    assert "  compared    20 steps, 4 variables; accuracy, loss; the rows of every step" in lines
    assert "largest difference 1.2e-01, dense/kernel at step 3" in text
    assert "drop: switched off in both runs" in text
    assert "  note        noted" in lines


def test_different(options):
    comparison = Comparison(first=[WORST, WORST], data=DataDifference(2, 16, 32, 8))
    text = report(Result(Verdict.DIFFERENT, options, comparison, finding=FINDING))
    assert text.startswith("DIFFERENT from step 2 on: 2 workers do not train as one device does.")
    joined = " ".join(text.split())
    assert "At step 2 one device trains on 16 rows, all replicas together on 32; 8 are the same." in joined
    assert "dense/kernel is off by 1.25e-01 (25% of what training has moved it)" in joined
    assert "1 more differ at that step" in joined
    assert "cause the title (likely)" in joined
    assert "- place 5 - and 2 more" in joined
    assert "why The explanation. remedy The remedy." in joined


def test_float64_decides(options):
    large = Comparison(first=[WORST], worst_variable=WORST)
    text = " ".join(report(Result(Verdict.EQUAL, options, large, float64=Comparison(steps=20))).split())
    assert "dense/kernel is off by 1.2e-01 at step 3. That is amplified rounding: it vanishes in float64" in text
    text = report(Result(Verdict.DIFFERENT, options, large, float64=large, finding=FINDING))
    assert "it is no rounding" in text


def test_could_not_run(options):
    words = ("Traceback (most recent call last):", "ValueError: bad")
    text = report(Result(Verdict.NOT_RUN, options, failed="2 workers, worker 1: exit code 1", words=words))
    assert text.splitlines() == [
        "COULD NOT RUN: 2 workers, worker 1: exit code 1",
        "    Traceback (most recent call last):",
        "    ValueError: bad",
    ]


@pytest.mark.parametrize("verdict, code", [(Verdict.EQUAL, 0), (Verdict.DIFFERENT, 1), (Verdict.NOT_RUN, 2)])
def test_json_holds_everything(options, verdict, code):
    comparison = Comparison(steps=3, first=[WORST], data=DataDifference(2, 16, 32, 8), logs={"loss"})
    found = json.loads(json.dumps(Result(verdict, options, comparison, finding=FINDING).to_json()))
    assert (found["verdict"], found["exit_code"]) == (verdict.value, code)
    assert found["first"][0]["name"] == "dense/kernel"
    assert found["first"][0]["excess"] == pytest.approx(125)
    assert found["data"]["common"] == 8
    assert found["finding"]["remedy"] == "The remedy."


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_counts_on_a_terminal(tmp_path, wait_until):
    shown = Terminal()
    with Progress(shown).phase("2 workers", [tmp_path], 20):
        folder = tmp_path / "worker-0"
        folder.mkdir()
        (folder / "records.jsonl").write_text('{"kind": "step", "step": 4}\n{"kind": "step", "step": 8}\n')
        wait_until(lambda: "8 of 20 steps" in shown.getvalue())
    assert shown.getvalue().endswith(" s\n")


def test_progress_is_one_line_elsewhere(tmp_path):
    shown = io.StringIO()
    with Progress(shown).phase("one device", [tmp_path], 20):
        pass
    assert shown.getvalue().count("\n") == 1
    assert "\r" not in shown.getvalue()
    assert recorded_steps(tmp_path) == 0
