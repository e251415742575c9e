"""What a timeline says, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfdist.strategies.stages.timeline import Timeline

pytestmark = pytest.mark.unit


def timeline() -> Timeline:
    """Two stages, two micro-batches: the second stage waits, and then the first one."""
    seconds = np.full((1, 2, 2, 2, 2), np.nan)
    seconds[0, 0, 0] = [0, 1], [1, 2]
    seconds[0, 1, 0] = [1, 2], [4, 5]
    seconds[0, 1, 1] = [2, 4], [5, 7]
    seconds[0, 0, 1] = [4, 6], [7, 10]
    return Timeline(seconds)


def test_the_bubble_is_the_share_of_time_without_a_unit():
    found = timeline()
    assert found.span_seconds == 10
    np.testing.assert_array_equal(found.busy_seconds, [[7, 6]])
    assert found.bubble == pytest.approx(0.35)
    assert found.scheduled_bubble == pytest.approx(1 / 3)
    assert found.at_a_time == pytest.approx(1.3)


def test_units_at_the_same_time_count_once():
    seconds = np.full((1, 2, 2, 2, 2), np.nan)
    seconds[0, 0, 0] = [0, 3], [2, 4]
    seconds[0, 1, 0] = [0, 4], [1, 2]
    np.testing.assert_array_equal(Timeline(seconds).busy_seconds, [[4, 4]])


def test_the_chart_has_a_line_for_each_stage():
    first, second = timeline().chart(width=10).splitlines()
    assert first == "pipeline 0  stage 0  01..AA.BBB"
    assert second == "            stage 1  .0AA1BB..."


def test_text_says_how_much_was_done_at_a_time():
    *_, last = str(timeline()).splitlines()
    assert last == (
        "10000.0 ms; a forward unit took 1000.0 ms, a backward unit 2000.0 ms (medians); 1.30 units at a time; "
        "bubble 35%, by the schedule 33%"
    )
