"""`tfdist launch` as a person runs it: real processes, none of which imports TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.helpers.launching import finish

pytestmark = pytest.mark.unit


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_every_task_runs_the_script_with_its_tf_config(launch):
    body = "print(json.dumps(config), os.environ['A'])"
    env = {**os.environ, "A": "hidden by --env"}
    code, out, err = finish(launch("--workers=2", "--ps=1", "--env", "A=b=c", body=body, env=env))
    assert (code, err) == (0, "")
    lines = dict(line.split("]", 1) for line in sorted(out.splitlines()))
    assert list(lines) == ["[chief/0", "[ps/0", "[worker/0", "[worker/1"]
    configs = {name: json.loads(text.removesuffix("b=c")) for name, text in lines.items()}
    assert {f"[{c['task']['type']}/{c['task']['index']}" for c in configs.values()} == set(configs)
    assert len({json.dumps(c["cluster"]) for c in configs.values()}) == 1


def test_arguments_behind_the_script_are_its_own(launch):
    args = ("--workers=3", "-h", "--", "-m", "a b")
    assert finish(launch(body="print(sys.argv[1:])", args=args))[:2] == (0, f"[worker/0] {list(args)}\n")


def test_a_module_can_be_launched(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train.py").write_text("import sys; print(sys.argv[1:])")
    command = [sys.executable, "-m", "tfdist", "launch", "-m", "package.train", "--workers=3", "-m"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[worker/0] ['--workers=3', '-m']\n"), done.stderr


def test_the_first_failure_gives_the_exit_code_and_the_report(launch):
    code, _, err = finish(
        launch(
            "--workers=3",
            body="""
        meet(3)
        if index == 1:
            try:
                {}["k"]
            except KeyError as error:
                raise SystemError("boom") from error
        signal.pause()
    """,
        )
    )
    assert code == 1
    assert "worker/1 failed first: exit code 1" in err
    assert err.index("KeyError: 'k'") < err.index("SystemError: boom")
    assert err.count("Traceback") == 2
    assert "worker/0 (ended by the launcher), worker/2 (ended by the launcher)" in err


def test_a_task_that_was_dragged_down_is_not_the_first(launch):
    """Worker 0 exits at once when worker 1 has raised, which takes its time to exit."""
    code, _, err = finish(
        launch(
            "--workers=2",
            body="""
        import atexit
        meet(2)
        if index == 1:
            def slow_exit():
                open("raised", "w").close()
                while not os.path.exists("dragged"): time.sleep(0.01)
                time.sleep(0.5)
            atexit.register(slow_exit)
            raise ValueError("the cause")
        while not os.path.exists("raised"): time.sleep(0.01)
        class UnavailableError(Exception): pass
        atexit.register(lambda: open("dragged", "w").close())
        raise UnavailableError("Collective ops is aborted by: Socket closed")
    """,
        )
    )
    assert "worker/1 failed first" in err
    assert "ValueError: the cause" in err
    assert "Socket closed" not in err
    assert code == 1


def test_exit_code_and_last_words_without_a_traceback(launch):
    code, _, err = finish(launch(body="print('oh dear', file=sys.stderr); sys.exit(7)"))
    assert code == 7
    assert "exit code 7" in err
    assert "Its last words on stderr:\n    oh dear" in err


def test_death_by_signal_is_128_and_its_number(launch):
    code, _, err = finish(launch(body="os.kill(os.getpid(), signal.SIGKILL)"))
    assert code == 137
    assert "killed by SIGKILL" in err


def test_a_crash_shows_where_in_python_it_was(launch):
    code, _, err = finish(launch(body="os.kill(os.getpid(), signal.SIGSEGV)"))
    assert code == 139
    assert "Fatal Python error: Segmentation fault" in err
    assert "script.py" in err


def test_a_traceback_that_is_not_fatal_is_shown_as_a_message(launch):
    code, out, err = finish(
        launch(
            body="""
        import traceback
        try: 1 / 0
        except ZeroDivisionError: traceback.print_exc()
        print("went on")
    """
        )
    )
    assert (code, out) == (0, "[worker/0] went on\n")
    assert "[worker/0] ZeroDivisionError" in err


def test_noise_is_hidden_unless_verbose_and_the_log_has_all(launch, tmp_path):
    body = """
        print("I0000 00:00:1795202538.088350    3128 port.cc:153] oneDNN", file=sys.stderr)
        print("level", os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
    """
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    code, out, err = finish(launch("--log_dir=a/b", body=body, env=env))
    assert (code, out, err) == (0, "[worker/0] level 2\n", "")
    assert "oneDNN" in (tmp_path / "a/b/worker-0.log").read_text()
    code, out, err = finish(launch("--verbose", body=body, env=env))
    assert out == "[worker/0] level None\n"
    assert "oneDNN" in err


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_tasks(launch, wait_until, tmp_path, signum, code):
    process = launch(
        "--workers=2",
        body=f"""
        def leave(*_):
            open(f"left-{{index}}", "w").close()
            sys.exit(0)
        signal.signal({int(signum)} if {int(signum)} != signal.SIGHUP else signal.SIGTERM, leave)
        meet(2)
        signal.pause()
    """,
    )
    wait_until(lambda: len(list(tmp_path.glob("here-*"))) == 2)
    tasks = family(process)
    process.send_signal(signum)
    assert finish(process)[0] == code
    assert len(list(tmp_path.glob("left-*"))) == 2
    assert all_gone(tasks)


def test_a_second_ctrl_c_skips_the_grace_period(launch, wait_until, tmp_path):
    """The periods are so long here that the test would not live to see their ends."""
    endless = "s.ON_INTERRUPT = tuple(type(i)(i.signum, 1000.0) for i in s.ON_INTERRUPT)"
    process = launch(
        body="""
        signal.signal(signal.SIGINT, lambda *_: open("int", "w").close())
        signal.signal(signal.SIGTERM, lambda *_: open("term", "w").close())
        meet(1)
        while True: signal.pause()
    """,
        env=patched(tmp_path, f"import tfdist.launch.supervisor as s; {endless}"),
    )
    for name in ("here-worker-0", "int", "term"):
        wait_until((tmp_path / name).exists)
        process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


def test_nothing_outlives_a_killed_launcher(launch, wait_until, tmp_path):
    process = launch(
        "--workers=2",
        body="""
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        meet(2)
        signal.pause()
    """,
    )
    wait_until(lambda: len(list(tmp_path.glob("here-*"))) == 2)
    tasks = family(process)
    assert len(tasks) >= 5  # 2 tasks, 2 of theirs, the watchdog
    process.kill()
    wait_until(lambda: all_gone(tasks))


def test_what_a_task_leaves_running_ends_with_it(launch, tmp_path):
    code, _, _ = finish(
        launch(
            body="""
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        open("pid", "w").write(str(child.pid))
    """
        )
    )
    assert code == 0
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def patched(folder, code: str) -> dict[str, str]:
    """An environment in which the launcher runs `code` first."""
    (folder / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("worker", ["signal.pause()", "raise RuntimeError('no chief')"], ids=["serves", "fails"])
def test_the_job_is_done_when_the_coordinator_is(launch, tmp_path, worker):
    """Workers and ps that serve for ever are ended; one that fails for want of its chief is no failure."""
    body = f"""
        meet(3)
        if kind == "worker":
            while not os.path.exists("done"): time.sleep(0.01)
            time.sleep(0.3)
            {worker}
        if kind == "chief":
            open("done", "w").close()
            sys.exit(0)
        signal.pause()
    """
    env = patched(tmp_path, "import tfdist.launch.supervisor as s; s.FINISH_SECONDS = 1.0")
    assert finish(launch("--workers=1", "--ps=1", body=body, env=env))[0] == 0


def test_the_reader_of_the_output_may_go_away(launch, tmp_path):
    process = launch("--workers=2", body="while True: print('y' * 100)")
    assert process.stdout.readline()
    tasks = family(process)
    process.stdout.close()
    assert process.wait(60) == 141
    assert all_gone(tasks)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_much_output_of_many_tasks_arrives_whole(launch):
    code, out, _ = finish(launch("--workers=4", body="for i in range(3000): print(i, 'x' * 50)"))
    assert code == 0
    for worker in range(4):
        mine = [line.split()[1] for line in out.splitlines() if line.startswith(f"[worker/{worker}]")]
        assert mine == [str(i) for i in range(3000)]


def test_tasks_do_not_read_the_terminal(launch):
    process = launch(body="print(repr(sys.stdin.read()))", stdin=subprocess.PIPE)
    out, _ = process.communicate("typed", timeout=60)
    assert (process.returncode, out) == (0, "[worker/0] ''\n")


def test_a_log_dir_that_cannot_be_made_is_an_error(launch, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = finish(launch("--log_dir=file/logs", body=""))
    assert code == 2
    assert "Received: log_dir='file/logs'" in err


def test_nodes_start_their_own_tasks_only(launch):
    options = ("--workers=3", "--node_addresses=127.0.0.1,localhost", "--port_base=23450")
    body = "print(config['cluster']['worker'])"
    addresses = ["127.0.0.1:23450", "127.0.0.1:23451", "localhost:23450"]
    _, first, _ = finish(launch(*options, "--node_rank=0", body=body))
    _, second, _ = finish(launch(*options, "--node_rank=1", body=body))
    assert sorted(first.splitlines()) == [f"[worker/{i}] {addresses}" for i in (0, 1)]
    assert second.splitlines() == [f"[worker/2] {addresses}"]


def test_run_from_python_and_beside_threads(tmp_path):
    """`tfdist.launch.run` needs no command line, and no main thread."""
    (tmp_path / "task.py").write_text("print('hi')")
    code = (
        "import sys, threading, tfdist.launch as l\n"
        "go = lambda: print(l.run([sys.executable, 'task.py'], l.LaunchOptions(workers=2)))\n"
        "go(); t = threading.Thread(target=go); t.start(); t.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert sorted(done.stdout.split("\n")) == sorted(["", *["[worker/0] hi", "[worker/1] hi", "0"] * 2]), done.stderr
