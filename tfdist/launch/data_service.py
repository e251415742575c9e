"""The processes of a tf.data service on this machine, which read for this node's tasks."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from tfdist.cluster.ports import HeldPorts
from tfdist.launch.environment import helper_environment
from tfdist.launch.options import LaunchOptions
from tfdist.launch.task_process import TaskSpec

# `tfdist.data.service.served_batches` reads it; nothing here may import that, since it loads TensorFlow.
ENVIRONMENT = "TFDIST_DATA_SERVICE"
_MODULE = "tfdist.data.service.process"
_HOST = "127.0.0.1"


@contextlib.contextmanager
def data_service(options: LaunchOptions) -> Iterator[tuple[list[TaskSpec], dict[str, str]]]:
    """Gives the dispatcher and the data workers to start, and the variables that tell the tasks of them.

    Free ports are held until the context ends.
    """
    if not options.data_workers:
        yield [], {}
        return
    env = helper_environment(options.env, verbose=options.verbose)
    with HeldPorts(options.data_workers + 1) as held, tempfile.TemporaryDirectory(prefix="tfdist-data-") as work_dir:
        held.release_for_servers()
        port, *ports = held.ports
        address = f"{_HOST}:{port}"
        dispatcher = ["dispatcher", f"--port={port}", f"--work_dir={os.path.join(work_dir, 'state')}"]
        workers = [["worker", f"--dispatcher={address}", f"--port={own}"] for own in ports]
        names = ["data/dispatcher", *(f"data/{index}" for index in range(options.data_workers))]
        commands = [[sys.executable, "-m", _MODULE, *args] for args in (dispatcher, *workers)]
        specs = [TaskSpec(name, command, env) for name, command in zip(names, commands, strict=True)]
        yield specs, {ENVIRONMENT: f"grpc://{address}"}
