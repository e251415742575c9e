"""Runs Keras' own tests, which its package brings, in a process with tfdist."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
NOT_INHERITED = ("TF_CONFIG", "PYTEST_ADDOPTS", "TF_USE_LEGACY_KERAS")


@dataclass(frozen=True)
class Outcome:
    """What became of the tests.

    Attributes:
        passed: how many did.
        failed: names of those that failed or could not start.
        output: what pytest printed.
    """

    passed: int
    failed: list[str]
    output: str

    def check(self, at_least: int) -> None:
        """All that ran passed, and they were not few."""
        assert not self.failed, f"Keras' own tests fail: {self.failed}\n{self.output[-6000:]}"
        assert self.passed >= at_least, f"only {self.passed} of Keras' own tests ran:\n{self.output[-6000:]}"


def source_folder() -> Path:
    """Where the installed package keeps its modules, and their tests beside them."""
    spec = importlib.util.find_spec("keras")
    return Path(spec.origin).parent / "src"


def run_keras_tests(files: Sequence[str], *, mode: str, scratch: Path, without: Sequence[str] = ()) -> Outcome:
    """Run test files of Keras.

    Args:
        files: files or folders, relative to `source_folder()`.
        mode: what of tfdist is there, see tests/helpers/pytest_tfdist.py.
        scratch: a folder for the report.
        without: tests whose names hold one of these words are left out.
    """
    report = scratch / "report.xml"
    options = ["-q", "--tb=short", "-W", "ignore", "-o", "addopts=", "-c", os.devnull, f"--rootdir={scratch}"]
    plugins = ["-p", "tests.helpers.pytest_tfdist", "-p", "no:cacheprovider"]
    selection = ["-k", f"not ({' or '.join(without)})"] if without else []
    paths = [str(source_folder() / file) for file in files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options, f"--junitxml={report}", *selection, *paths],
        cwd=ROOT,
        env=environment(TFDIST_TEST_AS=mode),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert report.exists(), f"pytest exited with {done.returncode}:\n{done.stdout[-6000:]}"
    return read_report(report, done.stdout)


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**inherited, **SETTINGS, **settings}


def read_report(report: Path, output: str) -> Outcome:
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case.get("name", "") for case in cases if {child.tag for child in case} & {"failure", "error"}]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return Outcome(len(cases) - len(failed) - len(skipped), failed, output)
