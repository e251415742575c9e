"""Starts Python programs by fork from a process that has imported TensorFlow and Keras already, see `warm_processes`.

`python -m tests.helpers.warm_server FD`: FD is a Unix socket. A request is a JSON object with args, cwd and env, and a
descriptor for the program's output; the answer is its pid. When a program ends, its pid and exit status are told.
"""

from __future__ import annotations

import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist

#: What programs use; imported, and nothing of it called: TensorFlow starts its threads when it is first used.
WARM = (keras, tf, tfdist, tfdist.callbacks, tfdist.data, tfdist.gradients)
REQUEST_BYTES = 1 << 20


def serve(requests: socket.socket) -> tuple[dict[str, Any], int] | None:
    """Answers requests until there are no more; in a program that it has started, returns what that was asked to do."""
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    ended.settimeout(None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            ended.recv(4096)
            for pid, status in _ended():
                _tell(requests, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})
        if requests in ready:
            text, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 1)
            if not text:
                return None
            with warnings.catch_warnings():
                # Python warns of threads, which here is NumPy's, that knows how to fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                # Of its own group before anybody knows of it, so that the group can be killed.
                os.setsid()
                _tell(requests, {"started": os.getpid()})
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (requests, ended, wake):
                    one.close()
                return json.loads(text), descriptors[0]
            os.close(descriptors[0])


def _ended() -> list[tuple[int, int]]:
    found = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))


def _tell(requests: socket.socket, message: dict[str, int]) -> None:
    requests.send(json.dumps(message).encode())


def run(request: dict[str, Any], output: int) -> None:
    """Become the program `python *args`."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    # Programs that are started by themselves have random states of their own.
    random.seed()
    np.random.seed()
    _, module, *rest = request["args"]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    # What is there is never collected, so that its memory stays shared with the programs.
    gc.freeze()
    wanted = serve(requests)
    if wanted is not None:
        run(*wanted)


if __name__ == "__main__":
    main()
