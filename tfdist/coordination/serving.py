"""Worker and ps tasks: they serve until the chief says that it's done, or is gone.

| what the task sees                       | what it does                        |
|------------------------------------------|-------------------------------------|
| the chief says that it's done            | exits with 0                        |
| the chief says that it failed            | exits with 1                        |
| the chief doesn't listen any more        | exits with 1, within GONE_SECONDS   |
| the chief hasn't listened yet            | waits, says so every minute         |
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time

import numpy as np
import tensorflow as tf

from tfdist._compat import tensorflow_py_functions as py_functions
from tfdist.cluster import Address, Cluster, Task
from tfdist.cluster.server import start_server
from tfdist.data.reading import reader_calls  # noqa: F401 # what graphs of data sets call in this process
from tfdist.log import logger

#: A chief that doesn't listen for so long is gone. It listens as long as it lives, whatever it does.
GONE_SECONDS = 3.0
_LOOK_EVERY_SECONDS = 0.5
_SAY_EVERY_SECONDS = 60.0
_TELL_SECONDS = 5.0
_END = "coordination.end"

_said: queue.SimpleQueue[int] = queue.SimpleQueue()


def serve(cluster: Cluster) -> int:
    """Serves as the cluster's own task; returns the code that the process is to exit with."""
    # Kept, or the server would end.
    server = start_server(cluster)
    logger.info("%s serves at %s until the chief is done", cluster.task, cluster.address)
    code = _wait(Address.parse(cluster.addresses("chief")[0]))
    del server
    return code


def _wait(chief: Address) -> int:
    begun = listened = said = time.monotonic()
    has_listened = False
    while True:
        with contextlib.suppress(queue.Empty):
            code = _said.get(timeout=_LOOK_EVERY_SECONDS)
            if code:
                logger.error("the chief has failed")  # the launcher knows by these words whose fault it was
            else:
                logger.info("the chief is done")
            return code
        now = time.monotonic()
        if chief.listens():
            has_listened, listened = True, now
        elif has_listened and now - listened > GONE_SECONDS:
            logger.error("the chief at %s is gone: it has not listened for %.0f s", chief, now - listened)
            return 1
        elif not has_listened and now - said > _SAY_EVERY_SECONDS:
            said = now
            logger.warning("still waiting for the chief at %s, for %.0f s", chief, now - begun)


def _end(code: np.ndarray) -> list[np.ndarray]:
    _said.put(int(code))
    return [np.int64(0)]


py_functions.register(_END, _end)


def tell_end(cluster: Cluster) -> None:
    """Called on the chief when the process ends: tells the tasks, as far as they are there."""
    code = 1 if hasattr(sys, "last_type") else 0
    tasks = [task for task, address in cluster.peers.items() if Address.parse(address).listens()]
    threads = [threading.Thread(target=_tell, args=(task, code), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _TELL_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    _silence()


def _silence() -> None:
    """What follows is TensorFlow's own end: an error for each function that it cannot remove from tasks that ended."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _tell(task: Task, code: int) -> None:
    device = f"/job:{task.type}/replica:0/task:{task.index}/device:CPU:0"
    with contextlib.suppress(tf.errors.OpError), tf.device(device):
        py_functions.call(_END, [tf.constant(code, tf.int64)], [tf.int64], stateful=True)
