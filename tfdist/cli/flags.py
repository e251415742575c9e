"""Options of one command: defined with absl, parsed up to the first argument that is none."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from types import ModuleType

from absl import flags

from tfdist.cluster.suggest import nearest_of

_ABSL_SAYS = ";\n    repeat this option to specify a list of values"
HELP = ("-h", "--help", "-help", "--helpfull", "-?")


class UsageError(Exception):
    """A command line is wrong; the message says what and how to repair it."""


class HelpRequested(Exception):
    """The user asks for help."""


def parse(values: flags.FlagValues, command: str, argv: Sequence[str], *, options_anywhere: bool = False) -> list[str]:
    """Sets `values` from the options at the front of `argv`, returns what follows them.

    Args:
        values: The options that there are.
        command: What to call the command in errors.
        argv: The words behind the command.
        options_anywhere: Whether options may stand behind plain arguments too.

    Raises:
        HelpRequested: If --help is among the options.
        UsageError: If an option is unknown or has a bad value.
    """
    try:
        # Otherwise options behind the first plain argument belong to the user's script.
        values.set_gnu_getopt(options_anywhere)
        return values([command, *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        if "-" + error.flagname in HELP or "--" + error.flagname in HELP:
            raise HelpRequested from error
        raise UsageError(_unknown(values, error.flagname)) from error
    except flags.IllegalFlagValueError as error:
        raise UsageError(_bad_value(values, str(error))) from error
    except flags.Error as error:
        raise UsageError(f"{_one_line(str(error))}.") from error


def help_text(module: ModuleType, usage: str) -> str:
    """Returns the help of a command: its usage, the docstring of its module, and its options."""
    parts = [f"usage: {getattr(module, 'USAGE', usage)}", (module.__doc__ or "").strip()]
    if hasattr(module, "define_flags"):
        parts.append(f"Options:\n{describe(module.define_flags())}")
    return "\n\n".join(parts)


def describe(values: flags.FlagValues) -> str:
    """Returns one paragraph per option, for a help text."""
    own = [values[name] for name in values if values[name].help and name not in ("flagfile",)]
    seen = {flag.name: flag for flag in own if flag.name != "undefok"}
    return "\n".join(_paragraph(flag) for flag in seen.values())


def _paragraph(flag: flags.Flag) -> str:
    is_switch = isinstance(flag, flags.BooleanFlag)
    short = f"-{flag.short_name}, " if flag.short_name else ""
    name = f"{short}--{flag.name}" if is_switch else f"{short}--{flag.name}=..."
    default = "" if is_switch or flag.default in (None, []) else f" (default: {flag.default})"
    said = (flag.help or "").removesuffix(_ABSL_SAYS) + default
    text = textwrap.fill(said, 76, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  {name}\n{text}"


def _unknown(values: flags.FlagValues, name: str) -> str:
    near = nearest_of(name, [known for known in values if known not in ("flagfile", "undefok")])
    hint = f" Did you mean --{near}?" if near else ""
    return f"Unknown option --{name}.{hint}"


def _bad_value(values: flags.FlagValues, said: str) -> str:
    match = re.match(r"flag --(\w+)=(.*?): ", said, re.DOTALL)
    if match is None:
        return _one_line(said)
    name, value = match.groups()
    wanted = "true or false" if values[name].boolean else values[name].parser.syntactic_help or "valid"
    return f"--{name} must be {wanted}. Received: {name}={value!r}."


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
