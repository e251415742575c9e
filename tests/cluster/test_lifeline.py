"""Children die with their parent: by each of the two lines alone, and by both."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tfdist.cluster.lifeline import Lifeline, kill_group

pytestmark = pytest.mark.unit

# A child that starts a grandchild, tells both ids by a file, and waits.
CHILD = """
import os, subprocess, sys, signal
grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {grandchild.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
"""
PARENT = """
import signal, sys, threading
from tfdist.cluster import lifeline
{before}
life = lifeline.Lifeline()
def start(): life.start([sys.executable, "-c", {child!r}, sys.argv[1]])
{start}
{after}
signal.pause()
"""
NO_KERNEL = "lifeline._shim = lambda: []"
NO_WATCHDOG = "life._watchdog.kill(); life._watchdog.wait()"
# The thread ends when the child is up, since the kernel's line is drawn by the child.
IN_THREAD = """
import os, time
def start_and_wait():
    start()
    while not os.path.exists(sys.argv[1]): time.sleep(0.01)
thread = threading.Thread(target=start_and_wait); thread.start(); thread.join()
"""
# A process forked without exec keeps the pipe to the watchdog open.
FORKED = "import os\nif os.fork() == 0: signal.pause()"


def is_gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "before, start, after, reaches_grandchildren",
    [
        ("", "start()", "", True),
        (NO_KERNEL, "start()", "", True),
        ("", "start()", NO_WATCHDOG, False),
        ("", IN_THREAD, "", True),
        ("", "start()", FORKED, True),
    ],
    ids=["both", "watchdog", "kernel", "thread", "forked"],
)
def test_no_orphans(tmp_path, wait_until, signum, before, start, after, reaches_grandchildren):
    told = tmp_path / "pids"
    code = PARENT.format(before=before, start=start, after=after, child=CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(told)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(told.exists)
        pids = [int(pid) for pid in told.read_text().split()]
        if after == NO_WATCHDOG:
            wait_until(lambda: len(psutil.Process(parent.pid).children()) == 1)
        assert not any(map(is_gone, pids))
        parent.send_signal(signum)
        parent.wait(60)
        wait_until(lambda: all(map(is_gone, pids if reaches_grandchildren else pids[:1])))
    finally:
        kill_group(parent.pid)
        for pid in map(int, told.read_text().split() if told.exists() else ()):
            kill_group(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_thread_that_ends_does_not_take_its_child_along(tmp_path, wait_until):
    """The kernel's line is bound to the thread that starts the child; so it's not drawn there."""
    told = tmp_path / "pids"
    code = PARENT.format(before="", start=IN_THREAD, after="print(flush=True)", child=CHILD)
    parent = subprocess.Popen([sys.executable, "-c", code, str(told)], stdout=subprocess.PIPE)
    try:
        wait_until(told.exists)
        parent.stdout.readline()  # the thread has ended, for Python
        child = int(told.read_text().split()[0])
        wait_until(lambda: psutil.Process(parent.pid).num_threads() == 1)  # and for the kernel
        assert not is_gone(child)
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: all(is_gone(int(pid)) for pid in told.read_text().split()))


def test_close_ends_what_was_started_and_not_forgotten(wait_until):
    lifeline = Lifeline()
    ended = lifeline.start([sys.executable, "-c", ""])
    assert ended.wait(60) == 0
    lifeline.forget(ended)
    left = lifeline.start([sys.executable, "-c", "import signal; signal.pause()"])
    lifeline.close()
    assert left.wait(60) == -signal.SIGKILL


def test_a_command_that_does_not_exist_says_so():
    lifeline = Lifeline()
    child = lifeline.start(["/no/such/program"], stderr=subprocess.PIPE)
    _, said = child.communicate(timeout=60)
    lifeline.close()
    assert child.returncode == 127
    assert said.decode() == "Can't start '/no/such/program': No such file or directory.\n"


def test_the_scripts_need_nothing_but_the_standard_library():
    folder = Path(sys.modules["tfdist.cluster.lifeline"].__file__).parent
    for script in ("watchdog.py", "die_with_parent.py"):
        assert "import tfdist" not in (folder / script).read_text()
        assert "from tfdist" not in (folder / script).read_text()
