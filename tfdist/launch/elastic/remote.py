"""Tasks on other machines: `ssh HOST 'exec python remote_task.py'`, whose standard input is the task's leash.

The remote side learns by that input what to run, in which folder and with which environment, and later which signals
to send. So nothing of it stands on a command line, where a shell would interpret it and every user of both machines
could read it; and when the connection ends, for whatever reason, so does the task. Both machines must have Python,
tfdist, the script and the working directory at the same paths.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tfdist.cluster.progress import ENVIRONMENT as PROGRESS
from tfdist.launch.task_process import STEP_MARK, TaskSpec

_GUARD = Path(__file__).with_name("remote_task.py")
# What a machine says of itself (PATH, HOME, ...) is not for another.
_PREFIXES = ("TF_", "TFDIST_", "KERAS_", "PYTHON", "CUDA_", "XLA_", "NCCL_", "GRPC_", "OMP_")


def remote_task(spec: TaskSpec, host: str, shell: Sequence[str], also: Collection[str] = ()) -> TaskSpec:
    """Returns what starts a task on another machine.

    Args:
        spec: The task, as it would be started here.
        host: A name from the list of hosts, which has checked it.
        shell: Program and arguments that run a command on a host.
        also: Variables to pass beside those of TensorFlow, Keras, Python and tfdist.
    """
    passed = {name: value for name, value in spec.env.items() if name.startswith(_PREFIXES) or name in also}
    # It names a file of this machine; there the task gets one of that machine.
    passed.pop(PROGRESS, None)
    order = {"cwd": os.getcwd(), "env": passed, "command": list(spec.command)}
    opening = json.dumps({**order, "step_variable": PROGRESS, "step_mark": STEP_MARK})
    # exec: no shell stays between the connection and the guard. Most shells understand it, and these quotes.
    remote_command = f"exec {shlex.join([sys.executable, '-I', '-S', str(_GUARD)])}"
    return TaskSpec(spec.name, [*shell, host, remote_command], _local_environment(spec.env), f"{opening}\n".encode())


def _local_environment(env: Mapping[str, str]) -> dict[str, str]:
    """For the remote shell itself; some pass on what it is given."""
    return {name: value for name, value in env.items() if name != "TF_CONFIG"}
