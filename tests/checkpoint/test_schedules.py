from __future__ import annotations

import pytest

from tfdist.checkpoint.schedules import EverySeconds, make_schedules
from tfdist.checkpoint.workers import OneProcess

pytestmark = pytest.mark.unit


class TwoWorkers:
    """The chief's answers, which the other worker gets too."""

    num_workers = 2

    def __init__(self):
        self.asked = 0

    def from_chief(self, name, make):
        self.asked += 1
        return make()


def test_steps_are_due_at_multiples_wherever_training_began():
    (schedule,) = make_schedules(5, None)
    schedule.note_saved(7)
    assert [step for step in range(8, 23) if due(schedule, step)] == [10, 15, 20]


def test_executions_of_several_steps_are_due_when_they_pass_a_multiple():
    (schedule,) = make_schedules(5, None)
    assert [step for step in range(3, 25, 3) if due(schedule, step)] == [6, 12, 15, 21]


def due(schedule, step, workers=None):
    found = schedule.is_due(step, workers or OneProcess())
    if found:
        schedule.note_saved(step)
    return found


def test_seconds_of_one_process():
    now = [100.0]
    schedule = EverySeconds(10, lambda: now[0])
    found = []
    for step in range(1, 40):
        now[0] += 1
        found += [step] if due(schedule, step) else []
    assert found == [10, 20, 30]


def test_workers_ask_seldom_and_save_in_time():
    """Steps of a tenth of a second, a checkpoint each 60 s; then steps become five times as slow."""
    now, workers = [0.0], TwoWorkers()
    schedule = EverySeconds(60, lambda: now[0])
    found = []
    for step in range(1, 4000):
        now[0] += 0.1 if step < 2000 else 0.5
        if due(schedule, step, workers):
            found.append(now[0])
    gaps = [later - earlier for earlier, later in zip([0.0, *found], found, strict=False)]
    assert len(gaps) > 10 and all(60 <= gap < 90 for gap in gaps), gaps
    assert workers.asked < 20 * len(gaps)


@pytest.mark.parametrize("options", [(0, None), (None, -1.0)])
def test_what_is_refused(options):
    with pytest.raises(ValueError, match=r"Expected: a positive every_"):
        make_schedules(*options)
