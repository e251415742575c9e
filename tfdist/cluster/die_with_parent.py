"""A script: asks the kernel to kill this process when its parent dies, then becomes a command.

    python -I -S die_with_parent.py PARENT_PID COMMAND ARGS...

It's done here, after exec, and not between fork and exec (`preexec_fn`), where a parent with
threads, such as one that has TensorFlow loaded, may deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Never returns."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the request was in
        os._exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"Can't start {command[0]!r}: {error.strerror}.", file=sys.stderr, flush=True)
        os._exit(127)


if __name__ == "__main__":
    main()
