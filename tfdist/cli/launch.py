"""Runs one script on all tasks of a job, on this machine or on several.

    tfdist launch --workers=2 train.py --epochs=3
    tfdist launch --workers=2 --ps=1 train.py
    tfdist launch --workers=2 --data_workers=2 train.py
    tfdist launch --workers=2 --mpi train.py
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

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfdist.cli.elastic_flags import define_elastic_flags, elastic_options
from tfdist.cli.flags import UsageError, parse
from tfdist.errors import LaunchError
from tfdist.launch import LaunchOptions, module_command, script_command
from tfdist.launch import run as launch

USAGE = "tfdist launch [options] script.py [args]"


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
    flags.DEFINE_boolean("mpi", False, "Let the tasks talk through MPI; needs mpi4py and mpiexec.", flag_values=v)
    flags.DEFINE_string(
        "mpiexec", None, "The mpiexec for --mpi, with options; found beside Python or on PATH.", flag_values=v
    )
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
    define_elastic_flags(v)
    return v


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
        mpi=values.mpi,
        mpiexec=values.mpiexec,
        max_restarts=values.max_restarts,
        elastic=elastic_options(values),
        restart_window_seconds=values.restart_window,
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise LaunchError(
            f"An environment variable must be KEY=VALUE. Received: env={text!r}. "
            f"Write for example --env TF_DETERMINISTIC_OPS=1"
        )
    return name, value
