"""Writes TFRecord files, and looks after them.

    tfdist data write    records of arrays, CSV files or Keras' data sets as TFRecord files
    tfdist data inspect  what files hold: records, bytes, features, the first records
    tfdist data verify   read every byte, and say of each fault where it is
    tfdist data stats    ranges, lengths and frequent values of each feature, balance of the files
    tfdist data reshard  copy the records into another number of files
    tfdist data index    write the index of files that have none

`tfdist data ACTION --help` says more. Quote patterns, 'data/train-*.tfrecord', or let the shell list the files.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from tfdist.cli.flags import HELP, HelpRequested, UsageError, help_text
from tfdist.cluster.suggest import nearest_of
from tfdist.errors import TfdistError

USAGE = "tfdist data ACTION [options] [PATTERN ...]"
ACTIONS = ("write", "inspect", "verify", "stats", "reshard", "index")
_COULD_NOT = 2


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    if not argv:
        raise UsageError(f"An action must be given, one of {', '.join(ACTIONS)}.")
    action, *rest = argv
    if action == "help":
        raise HelpRequested
    if action not in ACTIONS:
        near = nearest_of(action, ACTIONS)
        hint = f"Did you mean: tfdist data {near}?" if near else f"The actions are {', '.join(ACTIONS)}."
        raise UsageError(f"Unknown action {action!r}. {hint}")
    module = importlib.import_module(f"tfdist.cli.data.{action}")
    if rest and rest[0] in HELP:
        print(help_text(module, action))
        return 0
    return _run(action, module, rest)


def _run(action: str, module: ModuleType, argv: list[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its words about CPUs say nothing about data
    try:
        return int(module.run(argv))
    except HelpRequested:
        print(help_text(module, action))
        return 0
    except (TfdistError, ValueError, TypeError, OSError) as error:
        print(f"tfdist data {action}: {error}", file=sys.stderr)
        return _COULD_NOT
