"""The command line that runs a user's script or module."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tfdist.errors import LaunchError


def script_command(script: str, args: Sequence[str] = ()) -> list[str]:
    """Returns the command for a Python script; its arguments are passed untouched.

    Raises:
        LaunchError: If there's no such file.
    """
    path = Path(script)
    if script.startswith("-"):
        raise LaunchError(
            f"The script must come after the options of the launch. Received: script={script!r}. "
            f"Write: tfdist launch --workers=2 train.py {script}"
        )
    if not path.is_file():
        what = "a directory" if path.is_dir() else "no such file"
        raise LaunchError(
            f"The script must be a Python file. Received: script={script!r} ({what}, seen from "
            f"{Path.cwd()}). Check the path; for a module write: tfdist launch -m package.module"
        )
    return [sys.executable, script, *args]


def module_command(module: str, args: Sequence[str] = ()) -> list[str]:
    """Returns the command for a module, as `python -m` runs it.

    Raises:
        LaunchError: If the module can't be found.
    """
    try:
        # The parent of a dotted name is imported to find it; only the top one is safe to look up.
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None and not _in_working_directory(module):
        raise LaunchError(
            f"The module must be importable. Received: module={module!r}. Check its name, install "
            f"its package, or for a file write: tfdist launch --workers=2 path/to/train.py"
        )
    return [sys.executable, "-m", module, *args]


def _in_working_directory(module: str) -> bool:
    top = module.partition(".")[0]
    return Path(top).is_dir() or Path(f"{top}.py").is_file()
