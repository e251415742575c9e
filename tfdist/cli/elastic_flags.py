"""The options of `tfdist launch` that make an elastic job, see `tfdist.launch.elastic`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from absl import flags

from tfdist.errors import LaunchError
from tfdist.launch.elastic.options import DEFAULT_REMOTE_SHELL, ElasticOptions

_MAKES_ELASTIC = ("min_workers", "max_workers", "host_discovery", "hosts_file")
# Option, field of ElasticOptions, what it says.
_ELASTIC_SECONDS = (
    ("discovery_seconds", "discovery_seconds", "from one reading of the hosts to the next"),
    ("discovery_timeout", "discovery_timeout_seconds", "that --host_discovery may take"),
    ("elastic_timeout", "elastic_timeout_seconds", "to wait for --min_workers"),
    ("settle_seconds", "settle_seconds", "that more hosts must be there before the job takes them in"),
    ("host_cooldown", "host_cooldown_seconds", "that a host is left out, twice as long each further time"),
)


def define_elastic_flags(v: flags.FlagValues) -> None:
    """Adds the options."""
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(ElasticOptions)}
    flags.DEFINE_integer("min_workers", None, "Elastic: fewer workers wait for more hosts.", flag_values=v)
    flags.DEFINE_integer("max_workers", None, "Elastic: no more workers, whatever hosts there are.", flag_values=v)
    flags.DEFINE_string(
        "host_discovery", None, "Elastic: a program that prints the hosts, host[:slots] a line.", flag_values=v
    )
    flags.DEFINE_string("hosts_file", None, "Elastic: a file with the hosts, read again and again.", flag_values=v)
    flags.DEFINE_string(
        "remote_shell", shlex.join(DEFAULT_REMOTE_SHELL), "Elastic: what runs a command on another host.", flag_values=v
    )
    flags.DEFINE_integer(
        "host_failures",
        defaults["host_failures"],
        "Elastic: a host that fails so often in a row is left out for --host_cooldown.",
        flag_values=v,
    )
    flags.DEFINE_integer("reset_limit", None, "Elastic: how often the hosts may change.", flag_values=v)
    flags.DEFINE_boolean(
        "elastic_accumulation",
        defaults["accumulate"],
        "Elastic: fewer workers than --max_workers cut batches into micro-batches, so that none needs more memory.",
        flag_values=v,
    )
    for name, field, said in _ELASTIC_SECONDS:
        flags.DEFINE_float(name, defaults[field], f"Elastic: seconds {said}.", flag_values=v)


def elastic_options(values: flags.FlagValues) -> ElasticOptions | None:
    """Returns what was asked for; None for a job that isn't elastic.

    Raises:
        LaunchError: The options don't fit together.
    """
    if all(values[name].value is None for name in _MAKES_ELASTIC):
        _refuse_elastic_flags(values)
        return None
    if values.max_workers is None:
        raise LaunchError(
            "An elastic job must know how many workers it may have. Received: max_workers=None. "
            "Write for example --min_workers=1 --max_workers=4 --host_discovery=./hosts.sh."
        )
    seconds: dict[str, Any] = {field: values[name].value for name, field, _ in _ELASTIC_SECONDS}
    return ElasticOptions(
        min_workers=1 if values.min_workers is None else values.min_workers,
        max_workers=values.max_workers,
        host_discovery=_words("host_discovery", values.host_discovery or ""),
        hosts_file=Path(values.hosts_file) if values.hosts_file else None,
        remote_shell=_words("remote_shell", values.remote_shell),
        host_failures=values.host_failures,
        reset_limit=values.reset_limit,
        accumulate=values.elastic_accumulation,
        **seconds,
    )


def _refuse_elastic_flags(values: flags.FlagValues) -> None:
    names = [
        "remote_shell",
        "host_failures",
        "reset_limit",
        "elastic_accumulation",
        *(name for name, *_ in _ELASTIC_SECONDS),
    ]
    given = next((name for name in names if values[name].present), None)
    if given is not None:
        raise LaunchError(
            f"Only an elastic job has this option. Received: {given}={values[given].value} without max_workers. "
            f"Leave it out, or write for example --min_workers=1 --max_workers=4 --host_discovery=./hosts.sh."
        )


def _words(name: str, value: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise LaunchError(
            f"--{name} must be a program and its arguments, quoted as in a shell ({error}). Received: "
            f"{name}={value!r}. Close the quotes."
        ) from error
