"""`tfdist launch --max_restarts=N`: a worker of a job with ps tasks alone, otherwise all tasks."""

from __future__ import annotations

import os
import signal

import pytest

from tests.helpers.launching import finish
from tfdist.launch.restarts import Backoff, RestartBudget

pytestmark = pytest.mark.unit

#: Each start of a task writes a letter, so that a task knows how often it was started; tasks meet in each start.
STARTS = """
        with open(f"starts-{kind}-{index}", "a") as file: file.write("x")
        start = os.path.getsize(f"starts-{kind}-{index}")
        def meet(n):
            while sum(f.startswith("starts-") and os.path.getsize(f) >= start for f in os.listdir()) < n:
                time.sleep(0.01)
"""


def starts(folder) -> dict[str, int]:
    return {path.name.removeprefix("starts-"): path.stat().st_size for path in folder.glob("starts-*")}


SERVED = (
    STARTS
    + """
        if kind == "chief":
            while not os.path.exists("starts-worker-1") or os.path.getsize("starts-worker-1") < 2: time.sleep(0.01)
            open("done", "w").close()
            sys.exit(0)
        if kind == "worker" and index == 1 and start == 1:
            {fault}
        while not os.path.exists("done"): time.sleep(0.01)
"""
)
FAULTS = {"killed": "os.kill(os.getpid(), signal.SIGKILL)", "raises": "raise ValueError('first start')"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_of_a_job_with_ps_is_started_again_alone(launch, tmp_path, fault):
    body = SERVED.replace("{fault}", FAULTS[fault])
    code, _, err = finish(launch("--workers=2", "--ps=1", "--max_restarts=1", "--log_dir=logs", body=body))
    assert code == 0, err
    assert starts(tmp_path) == {"chief-0": 1, "worker-0": 1, "worker-1": 2, "ps-0": 1}
    assert "it is started again (restart 1 of 1)" in err
    assert ("killed by SIGKILL" if fault == "killed" else "ValueError: first start") in err
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {"worker-1.log", "worker-1-1.log"}


def test_all_are_started_again_when_another_task_fails(launch, tmp_path):
    """A parameter server, and a worker of a job in which all are tied together."""
    body = (
        STARTS
        + """
        meet(4)
        if index == 0 and kind == ("ps" if "ps" in config["cluster"] else "worker") and start == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if start == 1: signal.pause()
    """
    )
    code, _, err = finish(launch("--workers=2", "--ps=1", "--max_restarts=2", body=body))
    assert code == 0, err
    assert starts(tmp_path) == {"chief-0": 2, "worker-0": 2, "worker-1": 2, "ps-0": 2}
    assert "ps/0 failed first: killed by SIGKILL" in err
    assert "all tasks are started again (restart 1 of 2)" in err
    for path in tmp_path.glob("starts-*"):
        path.unlink()
    code, _, err = finish(launch("--workers=4", "--max_restarts=2", body=body))
    assert code == 0, err
    assert starts(tmp_path) == dict.fromkeys([f"worker-{index}" for index in range(4)], 2)


def test_the_restarts_of_single_tasks_and_of_all_are_counted_together(launch, tmp_path):
    body = (
        STARTS
        + """
        if start == 1: meet(3)
        if kind == "worker" and start == 1: sys.exit(5)
        if kind == "worker":
            open("again", "w").close()
        while not os.path.exists("again"): time.sleep(0.01)
        if kind == "chief":  # not before all have noted this start: the end of the chief ends them
            while (os.path.getsize("starts-worker-0"), os.path.getsize("starts-ps-0")) != (start + 1, start):
                time.sleep(0.01)
            sys.exit(3)
        signal.pause()
    """
    )
    code, _, err = finish(launch("--workers=1", "--ps=1", "--max_restarts=2", body=body))
    assert code == 3
    assert starts(tmp_path) == {"chief-0": 2, "worker-0": 3, "ps-0": 2}
    assert err.count("chief/0 failed first: exit code 3") == 2


def test_without_restarts_a_worker_that_dies_ends_the_job(launch, tmp_path):
    body = STARTS + "        meet(3)\n        if kind == 'worker': sys.exit(5)\n        signal.pause()"
    code, _, err = finish(launch("--workers=1", "--ps=1", body=body))
    assert (code, starts(tmp_path)) == (5, {"chief-0": 1, "worker-0": 1, "ps-0": 1})
    assert "worker/0 failed first: exit code 5" in err


def test_a_worker_that_ends_because_the_chief_did_is_not_started_again(launch, tmp_path):
    """The chief told it, and is still ending."""
    body = (
        STARTS
        + """
        meet(3)
        if kind == "chief":
            while not os.path.exists("told"): time.sleep(0.01)
            time.sleep(1)
            sys.exit(3)
        if kind == "worker":
            open("told", "w").close()
            print("ERROR:tfdist:the chief has failed", file=sys.stderr)
            sys.exit(1)
        signal.pause()
    """
    )
    code, _, err = finish(launch("--workers=1", "--ps=1", "--max_restarts=1", body=body))
    assert code == 3
    assert starts(tmp_path) == {"chief-0": 2, "worker-0": 2, "ps-0": 2}
    assert "chief/0 failed first" in err


def test_an_interrupted_job_is_not_started_again(launch, tmp_path, wait_until):
    process = launch("--workers=2", "--max_restarts=9", body=STARTS + "        meet(2)\n        signal.pause()")
    wait_until(lambda: len(starts(tmp_path)) == 2)
    process.terminate()
    assert finish(process)[0] == 143
    assert starts(tmp_path) == {"worker-0": 1, "worker-1": 1}


@pytest.mark.parametrize(
    "options, said",
    [
        (["--max_restarts=-1"], "max_restarts must be at least 0"),
        (["--max_restarts=1", "--restart_window=0"], "above 0. Received: restart_window=0.0"),
        (["--max_restarts=1", "--restart_window=inf"], "above 0. Received: restart_window=inf"),
        (["--restart_window=60"], "Received: restart_window=60, max_restarts=None. Add for example --max_restarts=3"),
    ],
)
def test_the_options_are_checked(launch, options, said):
    code, _, err = finish(launch(*options, body=""))
    assert code == 2
    assert said in err


def test_only_the_restarts_of_the_window_count():
    """Worked out by hand: two at any time within 10 s."""
    budget = RestartBudget(2, 10.0)
    assert [budget.take(now) for now in (0.0, 1.0, 9.9, 10.0, 10.9, 11.0)] == [True, True, False, True, False, True]
    assert str(budget) == "restart 2 of 2 within 10 s"
    whole_launch = RestartBudget(2)
    assert [whole_launch.take(now) for now in (0.0, 1.0, 1e9)] == [True, True, False]
    assert all(RestartBudget(None).take(now) for now in range(100))


def test_a_launch_with_a_window_outlives_more_restarts_than_it_may_have_at_once(launch, tmp_path):
    """The wait before each attempt is longer than the window."""
    body = STARTS + "        sys.exit(start < 4)"
    code, _, err = finish(launch("--max_restarts=1", "--restart_window=0.5", body=body))
    assert (code, starts(tmp_path)) == (0, {"worker-0": 4}), err
    assert err.count("started again (restart 1 of 1 within 0.5 s)") == 3


def test_the_waits_grow_until_an_attempt_lasts():
    backoff = Backoff()
    assert [backoff.take(1.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [backoff.take(seconds) for seconds in (61.0, 1.0, 60.0)] == [1, 2, 4]


def patched(folder, code: str) -> dict[str, str]:
    """An environment in which the launcher runs `code` first."""
    (folder / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("signum, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_the_wait(launch, tmp_path, wait_until, signum, code):
    """Which is so long here that the test would not live to see its end."""
    body = STARTS + "        meet(2)\n        sys.exit(3)"
    env = patched(tmp_path, "import tfdist.launch.restarts as r; r.FIRST_WAIT_SECONDS = 1000.0")
    with open(tmp_path / "err", "w") as err:
        process = launch("--workers=2", "--max_restarts=9", body=body, env=env, stderr=err)
        wait_until(lambda: "after a wait of 1000 s" in (tmp_path / "err").read_text())
        process.send_signal(getattr(signal, signum))
        assert finish(process)[0] == code
    assert starts(tmp_path) == {"worker-0": 1, "worker-1": 1}
    assert f"{signum}: no task runs" in (tmp_path / "err").read_text()


def test_each_attempt_has_ports_of_its_own_unless_they_are_given(launch, tmp_path):
    body = STARTS + "        print(config['cluster']['worker'][0])\n        sys.exit(start < 2)"
    ports = finish(launch("--max_restarts=1", body=body))[1].split()[1::2]
    assert len(set(ports)) == 2
    (tmp_path / "starts-worker-0").unlink()
    ports = finish(launch("--max_restarts=1", "--port_base=23470", body=body))[1].split()[1::2]
    assert ports == ["127.0.0.1:23470"] * 2


#: Notes a step as a tfdist strategy does.
STEP = """
        from tfdist.cluster.progress import ENVIRONMENT, ProgressFile, TrainingStep
        ProgressFile(os.environ[ENVIRONMENT]).write(TrainingStep(1, {batch}))
"""
REPEATED = {
    "same step": (STEP.replace("{batch}", "7") + "        raise ValueError('bad')", 2),
    "other step": (STEP.replace("{batch}", "start") + "        raise ValueError('bad')", 4),
    "no step": ("        raise ValueError('bad')", 2),
    "other words": ("        raise ValueError(f'bad {start}')", 4),
    "an object": ("        raise ValueError(f'bad {object()}')", 2),
    "killed": ("        os.kill(os.getpid(), signal.SIGKILL)", 4),
    "no traceback": ("        sys.exit('bad')", 4),
    "lost a peer": ("        class UnavailableError(Exception): pass\n        raise UnavailableError", 4),
    "every other time": ("        raise ValueError(f'bad {start % 2}')", 4),
}


@pytest.mark.parametrize("case", REPEATED)
def test_a_failure_that_repeats_at_the_same_step_is_not_started_again_for_ever(launch, tmp_path, case):
    fault, expected = REPEATED[case]
    env = patched(tmp_path, "import tfdist.launch.restarts as r; r.FIRST_WAIT_SECONDS = 0.01")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    body = STARTS + fault
    code, _, err = finish(launch("--max_restarts=3", body=body, env={**env, "TMPDIR": str(temporary)}))
    assert (code, starts(tmp_path)) == (137 if case == "killed" else 1, {"worker-0": expected}), err
    assert ("Restarting will not help" in err) == (expected == 2)
    assert err.count("worker/0 failed first") == expected
    if case == "same step":
        assert "failed in the same way at the same step twice: ValueError: bad (at epoch 1, batch 7, counted" in err
    assert list(temporary.iterdir()) == []


SAVED = "training state is saved, and the same command goes on with it (exit code 75)"


def test_preempted_tasks_are_started_again_while_restarts_last(launch, tmp_path):
    body = STARTS + "        meet(2)\n        sys.exit(75 if start < 3 else 0)"
    code, _, err = finish(launch("--workers=2", "--max_restarts=2", body=body))
    assert (code, starts(tmp_path)) == (0, {"worker-0": 3, "worker-1": 3}), err
    assert "preempted tasks: all tasks are started again (restart 2 of 2)" in err
    assert "failed first" not in err and SAVED not in err
    for path in tmp_path.glob("starts-*"):
        path.unlink()
    code, _, err = finish(launch("--workers=2", body=body))
    assert (code, starts(tmp_path)) == (75, {"worker-0": 1, "worker-1": 1})
    assert SAVED in err and "failed first" not in err


def test_when_a_task_is_preempted_the_others_may_save_too(launch, tmp_path):
    """They get time before they get a signal; one that lost its peer and says so has not failed."""
    body = (
        STARTS
        + """
        meet(3)
        if index == 0: sys.exit(75)
        signal.signal(signal.SIGTERM, lambda *_: open("ended", "w").close())
        time.sleep(1)
        if index == 2:
            class UnavailableError(Exception): pass
            raise UnavailableError
        open("saved", "w").close()
        sys.exit(75)
    """
    )
    code, _, err = finish(launch("--workers=3", body=body))
    assert code == 75, err
    assert (tmp_path / "saved").exists() and not (tmp_path / "ended").exists()
    assert "failed first" not in err


def test_a_failure_beside_preempted_tasks_is_a_failure(launch):
    body = STARTS + "        meet(2)\n        if index == 0: sys.exit(75)\n        raise ValueError('the cause')"
    code, _, err = finish(launch("--workers=2", body=body))
    assert code == 1
    assert "worker/1 failed first" in err and "the cause" in err and SAVED not in err


@pytest.mark.parametrize(
    "signum, others, code",
    [("SIGTERM", "75", 75), ("SIGTERM", "0", 75), ("SIGTERM", "1", 143), ("SIGHUP", "75", 129)],
)
def test_a_launch_told_to_end_says_whether_training_is_saved(launch, tmp_path, wait_until, signum, others, code):
    body = (
        STARTS
        + f"""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75 if index == 0 else {others}))
        open(f"ready-{{index}}", "w").close()
        while True: signal.pause()
    """
    )
    process = launch("--workers=2", "--max_restarts=9", body=body)
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
    process.send_signal(getattr(signal, signum))
    found, _, err = finish(process)
    assert (found, starts(tmp_path)) == (code, {"worker-0": 1, "worker-1": 1})
    assert (SAVED in err) == (code == 75)
