"""Worker and ps tasks: they serve until the chief says that it's done, or is gone.

| what the task sees                       | what it does                        |
|------------------------------------------|-------------------------------------|
| the chief says that it's done            | exits with 0                        |
| the chief says that it failed            | exits with 1                        |
| the chief says that it can't use it      | begins anew: runs its command again |
| the chief doesn't listen any more        | exits with 1, within GONE_SECONDS   |
| the chief's machine is out of reach      | waits, for OUT_OF_REACH_SECONDS     |
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
from tfdist._compat import tensorflow_remote_functions as remote_functions
from tfdist.cluster import Address, Cluster, Task
from tfdist.cluster.address import Answer
from tfdist.cluster.server import start_server
from tfdist.data.reading import reader_calls  # noqa: F401 # what graphs of data sets call in this process
from tfdist.log import logger

#: A chief that doesn't listen for so long is gone. It listens as long as it lives, whatever it does.
GONE_SECONDS = 3.0
#: A network that is cut for a while comes back, and the chief with it; what a ps holds would be lost.
OUT_OF_REACH_SECONDS = 120.0
_PATIENCE_SECONDS = {Answer.REFUSES: GONE_SECONDS, Answer.NONE: OUT_OF_REACH_SECONDS}
_LOOK_EVERY_SECONDS = 0.5
_SAY_EVERY_SECONDS = 60.0
_TELL_SECONDS = 5.0
_END = "coordination.end"
#: What the chief says, beside exit codes.
_AGAIN = -1

_said: queue.SimpleQueue[int] = queue.SimpleQueue()


def serve(cluster: Cluster, cpus: int = 1) -> int:
    """Serves as the cluster's own task; returns the code that the process is to exit with.

    Args:
        cluster: Names the task.
        cpus: Devices to cut its CPU into.
    """
    # Kept, or the server would end.
    server = start_server(cluster, cpus)
    logger.info("%s serves at %s until the chief is done", cluster.task, cluster.address)
    code = _wait(Address.parse(cluster.addresses("chief")[0]))
    if code == _AGAIN:
        logger.warning("the chief could not reach this task for a while: it begins anew")
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    del server
    return code


def _wait(chief: Address) -> int:
    begun = since = said = time.monotonic()
    last, has_listened = Answer.NONE, False
    while True:
        with contextlib.suppress(queue.Empty):
            code = _said.get(timeout=_LOOK_EVERY_SECONDS)
            if code > 0:
                logger.error("the chief has failed")  # the launcher knows by these words whose fault it was
            return code
        now, answer = time.monotonic(), chief.answer()
        if answer is not last:
            last, since = answer, now
        if answer is Answer.LISTENS:
            has_listened = True
        elif has_listened and now - since > _PATIENCE_SECONDS[answer]:
            logger.error("the chief at %s is gone: for %.0f s %s", chief, now - since, answer.value)
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
    peers = cluster.peers.items()
    threads = [threading.Thread(target=_tell, args=(task, address, code), daemon=True) for task, address in peers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _TELL_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    remote_functions.say_nothing_more()


def tell_to_begin_anew(task: Task) -> None:
    """Called on the chief, of a task whose server doesn't recover."""
    _say(task, _AGAIN)


def _tell(task: Task, address: str, code: int) -> None:
    if not Address.parse(address).listens():
        return
    _say(task, code)


def _say(task: Task, code: int) -> None:
    device = f"/job:{task.type}/replica:0/task:{task.index}/device:CPU:0"
    with contextlib.suppress(tf.errors.OpError), tf.device(device):
        py_functions.call(_END, [tf.constant(code, tf.int64)], [tf.int64], stateful=True)
