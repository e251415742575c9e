"""What there is to run: the modules of suite/, and the scripts of benchmarks/."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from .benchmark import Benchmark

FOLDER = Path(__file__).parent.parent


def names() -> list[str]:
    """Of all benchmarks."""
    return sorted(path.stem for path in (FOLDER / "suite").glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> Benchmark:
    """One of them."""
    return importlib.import_module(f"benchmarks.suite.{name}").BENCHMARK


def scripts() -> Iterator[tuple[str, str]]:
    """Name and first line of each script that can be run by itself."""
    for path in sorted(FOLDER.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(source)) or ""
        # A part of another script has no command line of its own.
        if f"benchmarks/{path.name}" in said and "PLAN.json" not in said:
            yield path.stem, said.splitlines()[0]
