"""Runs one script on all tasks of a job, on this machine or on several.

    tfdist launch --workers=2 train.py --epochs=3
    tfdist launch --workers=2 --ps=1 train.py
    tfdist launch --workers=2 --data_workers=2 train.py
    tfdist launch --workers=2 -m package.train --epochs=3

Each task is a process with its own TF_CONFIG. What follows the script is passed to it untouched.
Ctrl-C ends all tasks. If one fails, the others are ended, and the report at the end shows the
traceback of the task that failed first; its exit code is the command's. --max_restarts=3 starts
what failed again, up to three times.

Several machines: run the same command on each, with its own --node_rank:

    tfdist launch --workers=4 --node_addresses=10.0.0.1,10.0.0.2 --node_rank=0 train.py

Machines that come and go: one command, which starts workers on the hosts that a script or a file lists:

    tfdist launch --min_workers=1 --max_workers=4 --host_discovery=./hosts.sh train.py
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfdist.cli.flags import UsageError, parse
from tfdist.errors import LaunchError
from tfdist.launch import ElasticOptions, LaunchOptions, module_command, script_command
from tfdist.launch import run as launch
from tfdist.launch.elastic.options import DEFAULT_REMOTE_SHELL

USAGE = "tfdist launch [options] script.py [args]"

_MAKES_ELASTIC = ("min_workers", "max_workers", "host_discovery", "hosts_file")
# Option, field of ElasticOptions, what it says.
_ELASTIC_SECONDS = (
    ("discovery_seconds", "discovery_seconds", "from one reading of the hosts to the next"),
    ("discovery_timeout", "discovery_timeout_seconds", "that --host_discovery may take"),
    ("elastic_timeout", "elastic_timeout_seconds", "to wait for --min_workers"),
    ("settle_seconds", "settle_seconds", "that more hosts must be there before the job takes them in"),
    ("host_cooldown", "host_cooldown_seconds", "that a host is left out, twice as long each further time"),
)


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    v = flags.FlagValues()
    flags.DEFINE_integer("workers", 1, "Worker tasks of the whole job.", flag_values=v)
    flags.DEFINE_integer("ps", 0, "Parameter server tasks; adds a chief too.", flag_values=v)
    flags.DEFINE_boolean("chief", False, "Add a chief task to the workers.", flag_values=v)
    flags.DEFINE_integer(
        "data_workers", 0, "Processes on each machine that read and decode for its tasks.", flag_values=v
    )
    flags.DEFINE_integer(
        "max_restarts",
        None,
        "How often tasks that failed are started again, counted on each machine. Default: never; in an elastic job as "
        "often as it takes.",
        flag_values=v,
    )
    flags.DEFINE_float(
        "restart_window",
        None,
        "Only the restarts of the last so many seconds count for --max_restarts; without it all of the launch.",
        flag_values=v,
    )
    flags.DEFINE_multi_string(
        "env",
        [],
        "KEY=VALUE, an environment variable for all tasks. Repeat it for more.",
        flag_values=v,
    )
    flags.DEFINE_string(
        "log_dir",
        None,
        "Write all that each task prints to a file of its own in this directory.",
        flag_values=v,
    )
    flags.DEFINE_boolean("verbose", False, "Show TensorFlow's messages and every traceback.", flag_values=v)
    flags.DEFINE_integer("nnodes", None, "Machines; the number of --node_addresses if not given.", flag_values=v)
    flags.DEFINE_integer("node_rank", None, "Which of --node_addresses this machine is, from 0.", flag_values=v)
    flags.DEFINE_list(
        "node_addresses",
        [],
        "Host names or IP addresses of all machines, the same list on each.",
        flag_values=v,
    )
    flags.DEFINE_integer(
        "port_base",
        None,
        "First port of each machine's range. Default: free ports on one machine, 2222 and those after it on several.",
        flag_values=v,
    )
    _define_elastic_flags(v)
    return v


def _define_elastic_flags(v: flags.FlagValues) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(ElasticOptions)}
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
    for name, field, said in _ELASTIC_SECONDS:
        flags.DEFINE_float(name, defaults[field], f"Elastic: seconds {said}.", flag_values=v)


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    try:
        command = _parse_module(values, argv) or _parse_script(values, argv)
        return launch(command, _options(values))
    except LaunchError as error:
        raise UsageError(str(error)) from error


def _parse_module(values: flags.FlagValues, argv: Sequence[str]) -> list[str] | None:
    if "-m" not in argv:
        return None
    at = list(argv).index("-m")
    if parse(define_flags(), "launch", argv[:at]):
        return None  # it stands behind the script, and belongs to it
    if at + 1 == len(argv):
        raise LaunchError("-m must be followed by a module. Write: tfdist launch -m package.train")
    parse(values, "launch", argv[:at])
    return module_command(argv[at + 1], argv[at + 2 :])


def _parse_script(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    rest = parse(values, "launch", argv)
    if not rest:
        raise LaunchError("A script must be given. Write for example: tfdist launch --workers=2 train.py")
    return script_command(rest[0], rest[1:])


def _options(values: flags.FlagValues) -> LaunchOptions:
    addresses = tuple(values.node_addresses)
    nnodes = values.nnodes if values.nnodes is not None else max(1, len(addresses))
    if nnodes > 1 and values.node_rank is None:
        raise LaunchError(
            f"Each machine must say which one it is. Received: node_rank=None for {nnodes} nodes. "
            f"Add --node_rank=0 on the first machine, --node_rank=1 on the second, ..."
        )
    return LaunchOptions(
        workers=values.workers,
        ps=values.ps,
        chief=values.chief,
        data_workers=values.data_workers,
        env=dict(_variable(text) for text in values.env),
        log_dir=Path(values.log_dir) if values.log_dir else None,
        verbose=values.verbose,
        nnodes=nnodes,
        node_rank=values.node_rank or 0,
        node_addresses=addresses,
        port_base=values.port_base,
        max_restarts=values.max_restarts,
        elastic=_elastic_options(values),
        restart_window_seconds=values.restart_window,
    )


def _elastic_options(values: flags.FlagValues) -> ElasticOptions | None:
    if all(values[name].value is None for name in _MAKES_ELASTIC):
        _refuse_elastic_flags(values)
        return None
    if values.max_workers is None:
        raise LaunchError(
            "An elastic job must know how many workers it may have. Received: max_workers=None. "
            "Write for example --min_workers=1 --max_workers=4 --host_discovery=./hosts.sh."
        )
    return ElasticOptions(
        min_workers=1 if values.min_workers is None else values.min_workers,
        max_workers=values.max_workers,
        host_discovery=_words("host_discovery", values.host_discovery or ""),
        hosts_file=Path(values.hosts_file) if values.hosts_file else None,
        remote_shell=_words("remote_shell", values.remote_shell),
        host_failures=values.host_failures,
        reset_limit=values.reset_limit,
        **{field: values[name].value for name, field, _ in _ELASTIC_SECONDS},
    )


def _refuse_elastic_flags(values: flags.FlagValues) -> None:
    names = ["remote_shell", "host_failures", "reset_limit", *(name for name, *_ in _ELASTIC_SECONDS)]
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


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise LaunchError(
            f"An environment variable must be KEY=VALUE. Received: env={text!r}. "
            f"Write for example --env TF_DETERMINISTIC_OPS=1"
        )
    return name, value
