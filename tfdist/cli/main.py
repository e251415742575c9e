"""The command `tfdist`: finds the subcommand and runs it.

A subcommand is a module of this package with `run(argv) -> int`, whose docstring is its help.
Optional: `USAGE`, one line; `define_flags()`, whose options the help lists. It's imported only when
asked for, so that `tfdist --help` takes no time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import tfdist
from tfdist.cli.flags import HELP, HelpRequested, UsageError, help_text
from tfdist.cluster.suggest import nearest_of
from tfdist.errors import TfdistError

COMMANDS = {
    "launch": "run one script on all tasks of a job",
    "train": "train what a configuration file describes",
    "doctor": "look at this machine and TF_CONFIG, and say what is wrong",
    "data": "write, check, describe, reshard and index TFRecord files",
    "verify": "compare a script on several workers with one device, and say what differs and why",
    "plan": "predict what a step costs on machines that you don't have yet, and choose a strategy",
    "bench": "measure tfdist against other ways to train, on this machine",
}

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv`, the process's own by default; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        print(_overview(), file=sys.stderr)
        return USAGE_ERROR
    name, *rest = argv
    if name in (*HELP, "help"):
        print(_help_of(rest[0]) if rest and rest[0] in COMMANDS else _overview())
        return 0
    if name == "--version":
        print(f"tfdist {tfdist.__version__}")
        return 0
    if name not in COMMANDS:
        return _complain(_unknown(name), "tfdist --help")
    return _run(name, rest)


def _run(name: str, argv: list[str]) -> int:
    if argv and argv[0] in HELP:
        print(_help_of(name))
        return 0
    try:
        return _module(name).run(argv)
    except HelpRequested:
        print(_help_of(name))
        return 0
    except UsageError as error:
        return _complain(str(error), f"tfdist {name} --help")
    except TfdistError as error:
        print(f"tfdist {name}: {error}", file=sys.stderr)
        return 1


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tfdist.cli.{name}")


def _help_of(name: str) -> str:
    return help_text(_module(name), f"tfdist {name}")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: tfdist COMMAND [options]",
            "",
            *lines,
            "",
            "tfdist COMMAND --help says more; tfdist --version prints the version.",
        ]
    )


def _unknown(name: str) -> str:
    if name.endswith(".py") or name.startswith("-"):
        return f"Unknown command {name!r}. Did you mean: tfdist launch {name}?"
    if name.endswith((".yaml", ".yml")):
        return f"Unknown command {name!r}. Did you mean: tfdist train {name}?"
    near = nearest_of(name, COMMANDS)
    if near:
        return f"Unknown command {name!r}. Did you mean: tfdist {near}?"
    return f"Unknown command {name!r}. The commands are {', '.join(COMMANDS)}."


def _complain(message: str, see: str) -> int:
    print(f"tfdist: {message}\nSee: {see}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
