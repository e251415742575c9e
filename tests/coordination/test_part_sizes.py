"""What each worker is given, with times worked out by hand."""

from __future__ import annotations

import pytest

from tfdist.coordination.part_sizes import PartSizes

pytestmark = pytest.mark.unit


def test_nobody_knows_better_at_first():
    assert PartSizes().steps(3, 10, 20) == 10
    assert PartSizes().steps(3, 10, 8) == 8


def test_a_slow_worker_gets_less_by_the_root():
    """Times 1 and 4: mean 2.5; sizes 1 (alone) and sqrt(2.5 / 4) = 0.79; on average 1."""
    sizes = PartSizes()
    sizes.note(0, 1.0)
    sizes.note(1, 4.0)
    assert [sizes.steps(worker, 100, 200) for worker in range(2)] == [112, 88]


@pytest.mark.parametrize("cost", [0.0, 0.5])
def test_in_the_end_all_take_alike_long(cost):
    """One makes 10 steps a second, the others 100; a part costs something beside."""
    speeds, sizes = [10.0, 100.0, 100.0], PartSizes()
    for _ in range(40):
        steps = [sizes.steps(worker, 100, 200) for worker in range(3)]
        seconds = [cost + count / speed for count, speed in zip(steps, speeds, strict=True)]
        for worker, each in enumerate(seconds):
            sizes.note(worker, each)
    assert max(seconds) / min(seconds) < 1.1
    assert sum(steps) == pytest.approx(300, abs=2)


def test_equal_workers_keep_equal_parts():
    sizes = PartSizes()
    for _ in range(20):
        for worker in range(4):
            sizes.note(worker, 0.3)
    assert [sizes.steps(worker, 10, 20) for worker in range(4)] == [10] * 4
