"""Runs a benchmark as the command asks: cases, rounds, report, files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdist.errors import TfdistError

from . import documents, machine, plot, registry
from .benchmark import Benchmark
from .contenders import Case
from .report import Report
from .requirements import ROOT, Pythons
from .rounds import JobPool, measure

DOCUMENT = ROOT / "docs" / "benchmarks.md"
_PACKAGES = ("tensorflow", "keras", "tf_keras", "torch", "jax")


class BenchError(TfdistError):
    """What was asked for can't be measured."""


class UnknownContender(BenchError):
    """A benchmark has no contender of that name."""


@dataclass(frozen=True)
class RunOptions:
    """What holds for any benchmark.

    Args:
        command: that was typed.
        rounds: in each of which every case is measured; None for the benchmark's own.
        quick: whether it's to show only that it works.
        contenders: words of which a contender's name must have one; all contenders without.
        baseline: the contender that others are compared with; "" for the benchmark's own.
        output: folder of the results; None for bench_results/NAME.
        docs: whether docs/benchmarks.md is updated.
        pythons: the interpreters.
    """

    command: str
    rounds: int | None = None
    quick: bool = False
    contenders: tuple[str, ...] = ()
    baseline: str = ""
    output: Path | None = None
    docs: bool = False
    pythons: Pythons = dataclasses.field(default_factory=Pythons)


def overview() -> str:
    """A line for each benchmark, and for each script."""
    lines = ["Benchmarks (tfdist bench NAME):", ""]
    for name in registry.names():
        one = registry.load(name)
        lines += [f"  {name:12} {one.measures}", f"  {'':12} {one.takes}; needs {one.needs}"]
    lines += ["", "Scripts of their own (tfdist bench NAME [its options]):", ""]
    lines += [f"  {name:24} {said}" for name, said in registry.scripts()]
    return "\n".join(lines)


def run_script(name: str, arguments: Sequence[str]) -> int:
    """Run one of the scripts of benchmarks/; returns its exit code."""
    return subprocess.run([sys.executable, str(registry.FOLDER / f"{name}.py"), *arguments]).returncode


def run(benchmark: Benchmark, own: Any, options: RunOptions) -> int:
    """Measure, print, write.

    Args:
        benchmark: what to run.
        own: an instance of the benchmark's options.
        options: of the run.

    Returns:
        1 if a contender failed, otherwise 0.

    Raises:
        BenchError: there is nothing to run.
    """
    cases, missing = _present(benchmark, own, options)
    for name, reason in missing.items():
        _say(f"{name}: left out, {reason}")
    baseline = _baseline(benchmark, cases, options)
    about = machine.describe()
    rounds = options.rounds or (1 if options.quick else benchmark.rounds)
    with JobPool(options.pythons) as jobs:
        samples = measure(benchmark, cases, rounds, jobs, _say)
    versions = {name: options.pythons.versions(name, _PACKAGES) for name in {case.job.contender.python for case in
                cases}}  # fmt: skip
    report = Report(
        benchmark, samples, options.command, about, versions, baseline, missing, dataclasses.asdict(own)
    )  # fmt: skip
    _write(report, options)
    return 1 if samples.failures else 0


def _present(benchmark: Benchmark, own: Any, options: RunOptions) -> tuple[list[Case], dict[str, str]]:
    cases = benchmark.cases(own, options.pythons)
    every = list(dict.fromkeys(case.job.contender.name for case in cases))
    unknown = [name for name in options.contenders if name not in every]
    if unknown:
        raise UnknownContender(f"--contenders: Expected: some of {', '.join(every)}. Received: {', '.join(unknown)}.")
    wanted = [case for case in cases if case.job.contender.name in (options.contenders or every)]
    missing: dict[str, str] = {}
    for case in wanted:
        contender = case.job.contender
        if contender.name not in missing:
            reason = options.pythons.missing(contender.python, contender.needs)
            if reason:
                missing[contender.name] = reason
    cases = [case for case in wanted if case.job.contender.name not in missing]
    if not cases:
        raise BenchError(f"No contender of {benchmark.name} can run here: " + "; ".join(missing.values()))
    return cases, missing


def _baseline(benchmark: Benchmark, cases: Sequence[Case], options: RunOptions) -> str:
    names = list(dict.fromkeys(case.job.contender.name for case in cases))
    if options.baseline and options.baseline not in names:
        raise UnknownContender(f"--baseline: Expected: one of {', '.join(names)}. Received: {options.baseline}.")
    wanted = options.baseline or benchmark.baseline
    return wanted if wanted in names else names[0]


def _write(report: Report, options: RunOptions) -> None:
    name = report.benchmark.name
    table, remarks = report.table(), report.remarks()
    print("\n".join([*table, "", *remarks]))
    folder = options.output or Path("bench_results") / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    has_plot = plot.draw(report, folder / "results.png")
    _say(f"written: {folder / 'results.json'}" + (f", {folder / 'results.png'}" if has_plot else ""))
    if not has_plot:
        _say(plot.REMEDY)
    if options.docs:
        listed = [f"- {one.splitlines()[0]}" for one in remarks]
        lines = [*table, "", *([*listed, ""] if listed else []), report.source()]
        if has_plot:
            picture = DOCUMENT.parent / f"bench_{name}.png"
            shutil.copyfile(folder / "results.png", picture)
            lines += ["", f"![{report.benchmark.measures}]({picture.name})"]
        documents.update(DOCUMENT, name, lines)
        _say(f"updated: {DOCUMENT}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
