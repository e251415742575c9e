from __future__ import annotations

import signal

import pytest

from tfdist.launch.report import failure_report
from tfdist.launch.root_cause import first_failure
from tfdist.launch.supervisor import Outcome
from tfdist.launch.task_process import Ending

pytestmark = pytest.mark.unit

PEER_GONE = ["Traceback (most recent call last):", "tensorflow.python.framework.errors_impl.UnavailableError: x"]
OWN = ["Traceback (most recent call last):", "ValueError: boom"]


def ending(code=1, at=10.0, failed_at=None, words=(), stopped_at=None, log_path=None):
    return Ending(code, at, at if failed_at is None else failed_at, list(words), stopped_at, log_path)


@pytest.mark.parametrize(
    "endings, expected",
    [
        ({"a": ending(0), "b": ending(0)}, None),
        ({"a": ending(1, 2.0), "b": ending(1, 1.0)}, "b"),
        # exits later, but its traceback is older
        ({"a": ending(1, 2.0), "b": ending(1, 3.0, 1.0)}, "b"),
        # blames a peer, so it's not the first though it ended first
        ({"a": ending(1, 1.0, words=PEER_GONE), "b": ending(1, 2.0, words=OWN)}, "b"),
        ({"a": ending(1, 1.0, words=PEER_GONE), "b": ending(-signal.SIGKILL, 2.0)}, "b"),
        # all blame a peer: the first of them
        ({"a": ending(1, 2.0, words=PEER_GONE), "b": ending(1, 1.0, words=PEER_GONE)}, "b"),
        # served a chief that failed later, by the clock
        ({"a": ending(1, 1.0, words=["ERROR:tfdist:the chief has failed"]), "b": ending(3, 2.0)}, "b"),
        # ended by the launcher: no failure of its own
        ({"a": ending(-signal.SIGTERM, 2.0, stopped_at=1.5), "b": ending(1, 1.0)}, "b"),
        # saved its state, which is no failure; what lost it as a peer has not failed either
        ({"a": ending(75, 1.0), "b": ending(75, 2.0)}, None),
        ({"a": ending(75, 1.0), "b": ending(1, 2.0, words=PEER_GONE)}, None),
        ({"a": ending(75, 1.0), "b": ending(1, 2.0, words=OWN)}, "b"),
        # saved when it was ended for the other's sake
        ({"a": ending(75, 3.0, stopped_at=2.0), "b": ending(1, 1.0, words=PEER_GONE)}, "b"),
        # raised, hung at exit, and had to be ended
        ({"a": ending(-signal.SIGKILL, 9.0, 0.5, OWN, stopped_at=6.0), "b": ending(1, 1.0, words=PEER_GONE)}, "a"),
    ],
)
def test_first_failure(endings, expected):
    assert first_failure(endings) == expected


def report(first, endings, **options):
    return failure_report(Outcome(1, first, endings), 0.0, **options)


def test_the_report_shows_the_first_task_only(tmp_path):
    guilty = ending(1, 1.0, words=OWN, log_path=tmp_path / "b-1.log")
    said = report("b", {"a": ending(1, 2.0, words=PEER_GONE), "b": guilty})
    assert "b failed first: exit code 1, 1.0 s after the start.\nIts traceback:" in said
    assert "ValueError: boom" in said
    assert "UnavailableError" not in said
    assert "a (dragged down, exit code 1)" in said
    assert f"{tmp_path}/b-1.log" in said


def test_a_task_that_was_killed_may_have_used_up_the_memory():
    assert "killed by SIGKILL" in report("a", {"a": ending(-signal.SIGKILL)})
    assert "out of memory" in report("a", {"a": ending(-signal.SIGKILL)})


def test_a_lost_peer_that_had_ended_well_is_named():
    said = report("a", {"a": ending(1, 2.0, words=PEER_GONE), "b": ending(0, 1.0)})
    assert "b had ended before, with exit code 0" in said


def test_a_lost_peer_may_be_on_another_node():
    assert "another node" in report("a", {"a": ending(1, words=PEER_GONE)}, nnodes=2)


def test_a_long_traceback_is_cut_at_its_beginning():
    said = report("a", {"a": ending(words=[*(f"line {i}" for i in range(100)), "the end"])})
    assert "... 21 lines before ..." in said
    assert "the end" in said


def test_no_failure_no_report():
    assert report(None, {"a": ending(0)}) == ""
