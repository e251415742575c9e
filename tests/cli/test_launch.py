from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from tfdist.cli.main import main


@pytest.mark.unit
@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "A script must be given"),
        (["nope.py"], "Received: script='nope.py' (no such file"),
        (["."], "(a directory"),
        (["--workers=0", "s.py"], "Received: workers=0"),
        (["--workers=two", "s.py"], "--workers must be an integer. Received: workers='two'"),
        (["--workers"], "Missing value for flag --workers"),
        (["--env", "A", "s.py"], "Received: env='A'"),
        (["--env", "1A=2", "s.py"], "Received: env='1A=2'"),
        (["--env", "=2", "s.py"], "Received: env='=2'"),
        (["-m"], "-m must be followed by a module"),
        (["-m", "no_such_module"], "Received: module='no_such_module'"),
        (["--nnodes=2", "s.py"], "--node_rank=0"),
        (["--node_addresses=a,b", "s.py"], "--node_rank=0"),
        (["--node_rank=1", "s.py"], "node_rank=1, nnodes=1"),
        (["--nnodes=2", "--node_rank=0", "--workers=2", "s.py"], "--node_addresses=host0,host1"),
    ],
)
def test_wrong_command_lines(capsys, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text("")
    assert main(["launch", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.endswith("See: tfdist launch --help\n")


def read_terminal(fd: int, until: bytes) -> bytes:
    """What comes from a terminal up to `until`; pytest's own time-out is the deadline of last resort."""
    seen = b""
    while until not in seen:
        try:
            received = os.read(fd, 4096)
        except OSError:  # the other end is closed
            received = b""
        if not received:
            break
        seen += received
    return seen


@pytest.mark.unit
def test_on_a_terminal_with_colours_a_bar_and_ctrl_c(tmp_path):
    """Ctrl-C is a byte here, as from a keyboard: the terminal makes the signal."""
    (tmp_path / "s.py").write_text(
        "import os, sys, signal\n"
        "chief = '\"index\": 0' in os.environ['TF_CONFIG']\n"
        "if chief: sys.stdout.write('\\r1/9' + '\\b' * 3 + '\\r2/9'); sys.stdout.flush()\n"
        "while chief and not os.path.exists('go'): pass\n"
        "if not chief: print('hello'); open('go', 'w').close()\n"
        "if chief: sys.stdout.write('\\r3/9 ready'); sys.stdout.flush()\n"
        "signal.pause()\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background job ignores
        os.chdir(tmp_path)
        os.environ["TERM"] = "xterm"
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-m", "tfdist", "launch", "--workers=2", "s.py"])
    try:
        seen = read_terminal(terminal, b"3/9 ready")
        assert b"\x1b[35m[worker/1]\x1b[0m hello\r\n" in seen
        assert b"\x1b[36m[worker/0]\x1b[0m 3/9 ready" in seen
        os.write(terminal, b"\x03")
        rest = read_terminal(terminal, b"never said")
        assert b"SIGINT: ending all tasks" in rest
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
        assert b"failed first" not in rest
    finally:
        os.close(terminal)


SCRIPT = textwrap.dedent("""
    import json, os, sys
    import tensorflow as tf
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function
    def total():
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

    print("total", total().numpy())
    if "raise" in sys.argv and index == 1:
        raise ValueError("the cause")
    if "kill" in sys.argv and index == 0:
        os.kill(os.getpid(), 9)
    print("more", total().numpy())
""")


def launch(folder, *args):
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "tfdist", "launch", "--workers=2", "train.py", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)


@pytest.mark.cluster
def test_tensorflow_workers_find_each_other_and_are_quiet(tmp_path):
    done = launch(tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"[worker/{i}] {what} 2.0" for i in (0, 1) for what in ("more", "total")
    ]
    assert done.stderr == ""


@pytest.mark.cluster
def test_the_worker_that_raised_is_reported_and_not_the_collective_error_of_the_other(tmp_path):
    done = launch(tmp_path, "raise")
    assert done.returncode == 1
    assert "worker/1 failed first" in done.stderr
    assert "ValueError: the cause" in done.stderr
    assert "UNAVAILABLE" not in done.stderr
    assert "UnavailableError" not in done.stderr


@pytest.mark.cluster
def test_the_worker_that_was_killed_is_reported(tmp_path):
    done = launch(tmp_path, "kill")
    assert done.returncode == 128 + signal.SIGKILL
    assert "worker/0 failed first: killed by SIGKILL" in done.stderr
    assert "UNAVAILABLE" not in done.stderr
