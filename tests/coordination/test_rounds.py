"""Which executions make an optimizer step, and who has to wait; what is done with gradients is only written down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from tfdist.coordination.rounds import Rounds
from tfdist.errors import TaskLostError

pytestmark = pytest.mark.unit

WORKERS = 3


class Written:
    """Stands for pushes, and writes down what is done with them."""

    def __init__(self) -> None:
        self.done: list[tuple[str, list[int]]] = []
        self.on_chief = self
        self.optimizer = None

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, key: tuple[str, int]) -> Any:
        return lambda numbers: self.done.append((key[0], numbers.numpy().tolist()))


class OnGonePs(Written):
    """As if the ps couldn't be reached."""

    def __getitem__(self, key: tuple[str, int]) -> Any:
        def fail(numbers: tf.Tensor) -> None:
            raise tf.errors.UnavailableError(None, None, "failed to connect")

        return fail


def make(needed: int) -> tuple[Rounds, Written]:
    cluster = SimpleNamespace(addresses=lambda job: ["127.0.0.1:1"] * WORKERS)  # where nobody listens
    return Rounds(None, cluster, needed, lambda *_: None), Written()


def begin_all(rounds: Rounds, pushes: Any) -> list[int]:
    """As many as may."""
    numbers = []
    while not rounds.gate():
        numbers.append(rounds.begin(pushes))
    return numbers


def test_a_step_is_of_all_that_began_together():
    rounds, pushes = make(3)
    first = begin_all(rounds, pushes)
    assert len(first) == WORKERS
    assert [rounds.landed(number, 1) for number in reversed(first)] == [0, 0, 0]
    assert pushes.done == [("apply", first)], "in the order in which they began, so that sums are the same each time"
    assert len(begin_all(rounds, pushes)) == WORKERS


def test_none_begins_before_the_step_is_made():
    rounds, pushes = make(3)
    first, second, _ = begin_all(rounds, pushes)
    rounds.landed(first, 1)
    rounds.landed(second, 1)
    assert rounds.gate()


def test_what_is_late_is_dropped_and_nothing_else():
    rounds, pushes = make(2)
    slow, *quick = begin_all(rounds, pushes)
    for number in quick:
        rounds.landed(number, 1)
    for _ in range(2):
        quick = begin_all(rounds, pushes)
        assert len(quick) == 2, "as many as the round needs: a third would be late too"
        for number in quick:
            assert rounds.landed(number, 1) == 0
    assert rounds.landed(slow, 1) == 3
    assert pushes.done[-1] == ("drop", [slow])
    assert [what for what, _ in pushes.done].count("drop") == 1
    assert len(begin_all(rounds, pushes)) == WORKERS, "it takes part again"


def test_a_round_waits_for_the_quickest_of_more_slow_workers_than_backup_workers():
    rounds, pushes = make(2)
    slow, slower, quick = begin_all(rounds, pushes)
    rounds.landed(quick, 1)
    assert rounds.gate(), "all have begun in this round"
    rounds.landed(slow, 1)
    slow, quick = begin_all(rounds, pushes)
    rounds.landed(quick, 1)
    assert rounds.gate(), "the round has what it needs under way"
    rounds.landed(slow, 1)
    assert rounds.landed(slower, 1) == 2


def test_an_execution_that_found_no_data_is_none():
    rounds, pushes = make(3)
    first, second, third = begin_all(rounds, pushes)
    assert rounds.landed(first, 0) == 0
    assert not rounds.gate()
    rounds.landed(second, 1)
    rounds.landed(third, 1)
    rounds.end()
    assert pushes.done == [("apply", [second, third]), ("clear", [])]


def test_the_end_makes_a_step_of_what_is_left_once():
    rounds, pushes = make(3)
    number = rounds.begin(pushes)
    rounds.landed(number, 1)
    rounds.end()
    rounds.end()
    assert pushes.done == [("apply", [number]), ("clear", [])]


def test_what_an_interrupted_fit_has_left_is_no_step():
    rounds, pushes = make(3)
    first, *_ = begin_all(rounds, pushes)
    rounds.landed(first, 1)
    rounds.forget()
    assert pushes.done == [("clear", [])]
    assert len(begin_all(rounds, pushes)) == WORKERS


def test_gradients_of_all_functions_are_cleared_also_those_that_have_not_come():
    rounds, pushes = make(3)
    other = Written()
    rounds.landed(rounds.begin(pushes), 1)
    rounds.begin(other)
    rounds.forget()
    assert (pushes.done, other.done) == ([("clear", [])], [("clear", [])])


def test_a_parameter_server_that_is_gone_is_named():
    rounds, _ = make(3)
    rounds.landed(rounds.begin(OnGonePs()), 1)
    with pytest.raises(TaskLostError, match=r"ps/0 at 127\.0\.0\.1:1"):
        rounds.close()
