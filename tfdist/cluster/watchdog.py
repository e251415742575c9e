"""A script: waits for its parent to die, then kills the process groups that it was told about.

    python -I -S watchdog.py PARENT_PID < PIPE

Lines on the pipe: `+PID` remember this group, `-PID` forget it. End of file means that the parent
is gone, or has closed the pipe because it's done. Should another process have inherited the pipe's
write end, so that the end of file doesn't come, the change of parent tells as well.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

_LOOK_EVERY_SECONDS = 1.0


def main() -> None:
    """Returns when the parent is gone and its groups are killed."""
    # A terminal's Ctrl-C or a service manager's SIGTERM to all must not end the guard first.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    for pid in _groups_left_by(int(sys.argv[1])):
        with contextlib.suppress(OSError):  # ended by itself
            os.killpg(pid, signal.SIGKILL)


def _groups_left_by(parent: int) -> set[int]:
    groups: set[int] = set()
    unread = b""
    while True:
        ready, _, _ = select.select([0], [], [], _LOOK_EVERY_SECONDS)
        received = os.read(0, 4096) if ready else b""
        if ready and not received:
            return groups
        if not ready and os.getppid() != parent:
            return groups
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))


if __name__ == "__main__":
    main()
