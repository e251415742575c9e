"""Measures tfdist against other ways to train, in turns, on this machine.

    tfdist bench                                    what there is, how long it takes, what it needs
    tfdist bench scaling --rounds=5 --torch_python=PATH --jax_python=PATH
    tfdist bench scaling --quick                    whether it works here; the figures say nothing
    tfdist bench all --quick
    tfdist bench scaling --help                     the benchmark's own options

All contenders run in turns, pinned to cores; what isn't installed is left out, and said. Medians, spreads and ratios to
the baseline are printed and written to bench_results/NAME (JSON, and a picture if matplotlib is there); --docs writes
them into docs/benchmarks.md too. The benchmarks are in benchmarks/ of a checkout, not in the package.

Exit code: 0, 1 if a contender failed or nothing can run, 2 if an option is wrong.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags

from tfdist.cli.flags import HelpRequested, UsageError, describe, parse
from tfdist.cluster.suggest import nearest_of
from tfdist.errors import TfdistError

USAGE = "tfdist bench [NAME] [options]"
ROOT = Path(__file__).parent.parent.parent


def define_flags() -> flags.FlagValues:
    """Returns the options that all benchmarks have."""
    v = flags.FlagValues()
    flags.DEFINE_integer("rounds", None, "In each of which all are measured once.", lower_bound=1, flag_values=v)
    flags.DEFINE_boolean("quick", False, "One round of the least work.", flag_values=v)
    flags.DEFINE_list("contenders", [], "Only these, with commas between them.", flag_values=v)
    flags.DEFINE_string("baseline", "", "The contender that others are compared with.", flag_values=v)
    flags.DEFINE_string("output", None, "Folder of the results; default: bench_results/NAME.", flag_values=v)
    flags.DEFINE_boolean("docs", False, "Write the results into docs/benchmarks.md.", flag_values=v)
    flags.DEFINE_string("torch_python", None, "A Python that has torch; default: this one.", flag_values=v)
    flags.DEFINE_string("jax_python", None, "A Python that has Keras and JAX; default: this one.", flag_values=v)
    flags.DEFINE_string("mpi_python", None, "A Python with tfdist and mpi4py; default: this one.", flag_values=v)
    return v


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    if argv and argv[0].startswith("-"):
        parse(define_flags(), "bench", argv)
        raise UsageError(f"The benchmark's name comes first. Received: {argv[0]}. Write: {USAGE}")
    harness = _harness("command")
    if not argv:
        print(harness.overview())
        return 0
    name, *rest = argv
    registry = _harness("registry")
    if name in dict(registry.scripts()):
        return harness.run_script(name, rest)
    known = registry.names()
    if name == "all":
        return max(_run_if_possible(harness, registry.load(one), one, rest) for one in known)
    if name not in known:
        near = nearest_of(name, [*known, *dict(registry.scripts())])
        hint = f" Did you mean {near}?" if near else f" There are {', '.join(known)}."
        raise UsageError(f"Unknown benchmark {name!r}.{hint}")
    try:
        return _run(harness, registry.load(name), name, rest)
    except harness.UnknownContender as error:
        raise UsageError(str(error)) from error


def _run_if_possible(harness: Any, benchmark: Any, name: str, argv: list[str]) -> int:
    print(f"\n{name}: {benchmark.measures}", flush=True)
    try:
        return _run(harness, benchmark, name, argv)
    except harness.BenchError as error:
        print(f"left out: {error}", flush=True)
        return 0


def _run(harness: Any, benchmark: Any, name: str, argv: list[str]) -> int:
    values, options = define_flags(), _harness("options")
    options.define(benchmark.options, values)
    try:
        rest = parse(values, "bench", argv, options_anywhere=True)
    except HelpRequested:
        print(f"usage: tfdist bench {name} [options]\n\n{benchmark.measures}\n\nOptions:\n{describe(values)}")
        return 0
    if rest:
        raise UsageError(f"tfdist bench {name} takes options only. Received: {' '.join(rest)}.")
    try:
        own = options.read(benchmark.options, values, quick=values.quick)
    except ValueError as error:
        raise UsageError(str(error)) from error
    pythons = {"torch": values.torch_python, "jax": values.jax_python, "mpi": values.mpi_python}
    run_options = harness.RunOptions(
        _command(name, values),
        rounds=values.rounds,
        quick=values.quick,
        contenders=tuple(values.contenders),
        baseline=values.baseline,
        output=Path(values.output) if values.output else None,
        docs=values.docs,
        pythons=_harness("requirements").Pythons({key: path for key, path in pythons.items() if path}),
    )
    return harness.run(benchmark, own, run_options)


def _command(name: str, values: flags.FlagValues) -> str:
    """What others are to type: without paths of this machine."""
    words = []
    for flag in (values[one] for one in values if values[one].present and one not in ("output", "docs", "help")):
        words += [f"--{flag.name}=PATH"] if flag.name.endswith("_python") else flag.serialize().splitlines()
    return shlex.join(["tfdist", "bench", name, *words])


def _harness(module: str) -> Any:
    """A module of benchmarks/harness.

    Raises:
        TfdistError: tfdist is installed without its checkout.
    """
    if not (ROOT / "benchmarks" / "harness").is_dir():
        raise TfdistError(
            f"Expected: the folder benchmarks/ of tfdist's repository, which is no part of the package. Received: "
            f"tfdist installed in {ROOT}, without it. Clone the repository, and run: pip install --editable ."
        )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"benchmarks.harness.{module}")
