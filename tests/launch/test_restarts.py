"""`tfdist launch --max_restarts=N`: a worker of a job with ps tasks alone, otherwise all tasks."""

from __future__ import annotations

import pytest

from tests.helpers.launching import finish

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


def test_the_number_is_checked(launch):
    code, _, err = finish(launch("--max_restarts=-1", body=""))
    assert code == 2
    assert "max_restarts must be at least 0" in err
