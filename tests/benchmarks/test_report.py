"""What is written: JSON, tables, pictures, and the section of the document."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness import documents, plot
from benchmarks.harness.report import SCHEMA, Report
from benchmarks.harness.samples import Quantity, Samples
from tests.benchmarks.counting_cases import benchmark

pytestmark = pytest.mark.unit

QUANTITIES = (Quantity("step", "ms", 1e3, is_plotted=True), Quantity("weak", "%", 100, has_ratio=False))


def report() -> Report:
    """The baseline took 10, 20 and 40 ms, the other 20, 20 and 20: twice, once and half as much."""
    samples = Samples()
    for number, (base, other) in enumerate(((0.01, 0.02), (0.02, 0.02), (0.04, 0.02))):
        samples.add("base", "2 workers", number, {"step": base})
        samples.add("other", "2 workers", number, {"step": other, "weak": 0.5})
    samples.failures["third", "2 workers"] = "third: process 0 ended with exit code 1\n--- process 0:\nboom"
    machine = {"cpu": "A CPU", "cores": 2, "memory_bytes": 24 * 2**30, "system": "Linux", "load": 0.25}
    return Report(
        benchmark=benchmark([], name="counting", quantities=QUANTITIES),
        samples=samples,
        command="tfdist bench counting",
        machine=machine,
        versions={"here": {"python": "3.11", "tensorflow": "2.21"}, "torch": {"python": "3.11", "torch": "2.15"}},
        baseline="base",
        missing={"MPI": "not available. Remedy: install it"},
        options={"steps": 3},
        begun="2026-11-22T12:00:00+00:00",
    )


def test_json():
    found = json.loads(json.dumps(report().as_json()))
    assert set(found) == {
        *("schema", "benchmark", "command", "begun", "machine", "versions"),
        *("options", "baseline", "rows", "missing", "failed"),
    }
    assert found["schema"] == SCHEMA
    assert [(row["contender"], row["quantity"]) for row in found["rows"]] == [
        ("base", "step"),
        ("other", "step"),
        ("other", "weak"),
    ]
    row = found["rows"][1]
    assert row["rounds"] == {"0": 20.0, "1": 20.0, "2": 20.0}
    assert (row["median"], row["low"], row["high"], row["unit"]) == (20.0, 20.0, 20.0, "ms")
    assert row["ratio"] == {"median": 1.0, "low": 0.5, "high": 2.0}
    assert found["rows"][2]["ratio"] is None
    assert found["rows"][2]["median"] == 50.0
    assert found["missing"] == [{"contender": "MPI", "reason": "not available. Remedy: install it"}]
    assert found["failed"][0]["contender"] == "third" and "boom" in found["failed"][0]["error"]


def test_a_table():
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report().table()]
    assert lines[0] == ["setting", "contender", "step, ms", "to base", "weak, %"]
    assert lines[2:] == [
        ["2 workers", "base", "20 (10-40)", "1.00", ""],
        ["2 workers", "other", "20 (20-20)", "1.00", "50 (50-50)"],
    ]


def test_what_is_missing_and_what_failed_is_said():
    said = report().remarks()
    assert said[0] == "MPI: left out, not available. Remedy: install it"
    assert said[1].startswith("third, 2 workers: failed:\n") and "boom" in said[1]
    assert (
        "A CPU, 2 cores, 24 GiB, load 0.2 at the start; python 3.11, tensorflow 2.21, torch 2.15." in report().source()
    )


def test_a_picture(tmp_path):
    path = tmp_path / "picture.png"
    has_library = plot.draw(report(), path)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert not has_library and not path.exists()
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_section_replaces_itself_alone(tmp_path):
    begin, end = documents.markers("counting")
    path = tmp_path / "benchmarks.md"
    path.write_text(f"# Measured\n\nBy hand.\n\n{begin}\nold\n{end}\n\nBelow.\n")
    documents.update(path, "counting", ["new", "lines"])
    assert path.read_text() == f"# Measured\n\nBy hand.\n\n{begin}\n\nnew\nlines\n\n{end}\n\nBelow.\n"
    documents.update(path, "counting", ["newer"])
    assert path.read_text() == f"# Measured\n\nBy hand.\n\n{begin}\n\nnewer\n\n{end}\n\nBelow.\n"


def test_a_section_that_is_not_there_comes_at_the_end():
    begin, end = documents.markers("counting")
    assert documents.with_section("# Measured\n", "counting", ["x"]) == (
        f"# Measured\n\n## counting\n\n{begin}\n\nx\n\n{end}\n"
    )


@pytest.mark.parametrize("which", [(0,), (1,), (1, 0), (0, 1, 0, 1)])
def test_markers_that_are_no_pair(which):
    text = "\n".join(documents.markers("counting")[index] for index in which)
    with pytest.raises(documents.DocumentError, match=r"Expected: .* once, and .* once behind it. Received: "):
        documents.with_section(text, "counting", ["x"])
