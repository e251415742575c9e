"""Statistics and what benchmarks derive, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.harness.samples import Samples
from benchmarks.harness.statistics import Summary, ratios
from benchmarks.suite import planning, scaling, slow_links
from tfdist.planning import Link, Machines
from tfdist.planning.collectives import all_reduce_seconds

pytestmark = pytest.mark.unit


def test_a_summary():
    assert Summary.of([3.0, 1.0, 2.5]) == Summary(2.5, 1.0, 3.0)
    assert Summary.of([1.0, 2.0, 4.0, 9.0]) == Summary(3.0, 1.0, 9.0)
    assert Summary.of([7.0]) == Summary(7.0, 7.0, 7.0)


def test_ratios_are_of_the_same_round():
    """A round in which all is slow says nothing of either; one that lacks a number is left out."""
    assert ratios({0: 2.0, 1: 20.0, 2: 3.0}, {0: 1.0, 1: 10.0, 3: 5.0}) == [2.0, 2.0]


def test_samples_leave_out_what_was_not_reached():
    samples = Samples()
    samples.add("a", "1", 0, {"seconds": None, "accuracy": 0.9})
    samples.add("a", "1", 1, {"seconds": 3.0, "accuracy": 0.98})
    assert samples.of("a", "1", "seconds") == {1: 3.0}
    assert slow_links.BENCHMARK.remarks(samples) == ["a, 1: 1 of 2 rounds did not reach the accuracy"]


def test_efficiency():
    """128 rows in 20 ms and 256 in 32 ms by one worker; 25 ms by two with 128 each."""
    samples = Samples()
    for setting, seconds in (("1 worker x 128", 0.020), ("1 worker x 256", 0.032), ("2 workers x 128", 0.025)):
        samples.add("a", setting, 0, {"step": seconds})
    scaling.BENCHMARK.derive(samples)
    assert samples.of("a", "1 worker x 128", "examples") == {0: pytest.approx(6400)}
    assert samples.of("a", "2 workers x 128", "examples") == {0: pytest.approx(10240)}
    assert samples.of("a", "2 workers x 128", "weak") == {0: pytest.approx(0.8)}
    assert samples.of("a", "2 workers x 128", "strong") == {0: pytest.approx(0.64)}


def test_one_worker_that_failed_leaves_no_efficiency():
    samples = Samples()
    samples.add("a", "2 workers x 128", 0, {"step": 0.025})
    scaling.BENCHMARK.derive(samples)
    assert samples.of("a", "2 workers x 128", "weak") == {}
    assert samples.of("a", "2 workers x 128", "examples") == {0: pytest.approx(10240)}


@pytest.mark.parametrize("ends", [2, 4])
def test_a_link_is_found_from_two_all_reduces(ends):
    link = Link(50e6, 2e-3)
    machines = Machines(ends, 1, link, link)
    small, large = (all_reduce_seconds(size, machines) for size in (0, planning.LARGE_BYTES))
    found = planning.link_of(small, large, ends)
    assert found.latency_seconds == pytest.approx(2e-3)
    assert found.bytes_per_second == pytest.approx(50e6)


def test_a_predicted_step():
    """7.45 MB of gradients: 2 * (1 ms + 3.7 MB / 100 MB/s), two small exchanges of 2 ms, and 30 ms of computing."""
    count = 784 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10
    expected = 0.030 + 2 * (1e-3 + 4 * count / 2 / 100e6) + 2 * 2e-3
    assert planning.predicted_seconds(0.030, 1024, 2, Link(100e6, 1e-3)) == pytest.approx(expected)


def test_predictions_are_of_the_same_round():
    samples = Samples()
    at = "2 workers, 1000 Mbit/s"
    for number, slower in ((0, 1.0), (1, 3.0)):
        samples.add("computing alone", "2 workers, 1024 units", number, {"step": 0.03 * slower})
        samples.add("tfdist fit", f"{at}, smallest", number, {"seconds": 0.002 * slower})
        samples.add("tfdist fit", f"{at}, largest", number, {"seconds": 0.162 * slower})
        samples.add("tfdist fit", f"{at}, 1024 units", number, {"step": 0.1 * slower})
    planning.BENCHMARK.derive(samples)
    first, second = samples.of("tfdist fit", f"{at}, 1024 units", "share").values()
    assert first == pytest.approx(second)
    assert samples.of("the link", at, "latency") == {0: pytest.approx(1e-3), 1: pytest.approx(3e-3)}
