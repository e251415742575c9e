"""Every step of a pass is leased once, whoever asks and in whatever order."""

from __future__ import annotations

import random

import pytest

from tfdist.coordination.dealing import InOrder, Lease, Paced, Ranges, Streams
from tfdist.coordination.part_sizes import PartSizes

pytestmark = pytest.mark.unit


def steps_of(leases: list[Lease]) -> list[int]:
    return [step for lease in leases for step in range(lease.first, lease.first + lease.steps)]


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 24, 25])
def test_in_order_gives_the_steps_from_front_to_back(num_steps, count):
    dealer = InOrder(num_steps)
    leases = [dealer.deal(worker % 3, count) for worker in range(-(-num_steps // count))]
    assert steps_of(leases) == list(range(num_steps))


def test_in_order_goes_on_where_nobody_knows_the_end():
    dealer = InOrder(None)
    assert [dealer.deal(0, 4) for _ in range(3)] == [Lease(0, 4), Lease(4, 4), Lease(8, 4)]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("num_steps", [1, 4, 29, 100])
def test_ranges_lease_every_step_once_whoever_asks(num_steps, count, workers):
    dealer = Ranges(num_steps, count, workers, patience_seconds=0.0)
    asks = random.Random(num_steps * workers + count)
    leases = [dealer.deal(asks.randrange(workers), count) for _ in range(-(-num_steps // count))]
    assert sorted(steps_of(leases)) == list(range(num_steps))


def test_a_worker_reads_its_range_from_front_to_back():
    dealer = Ranges(20, 1, workers=2)
    assert steps_of([dealer.deal(1, 1) for _ in range(10)]) == list(range(10, 20))
    assert steps_of([dealer.deal(0, 1) for _ in range(3)]) == [0, 1, 2]


def test_a_worker_without_a_range_takes_half_of_the_longest():
    dealer = Ranges(40, 1, workers=2)
    assert len([dealer.deal(0, 1) for _ in range(20)]) == 20
    # Of 20..39 it takes 30..39.
    assert dealer.deal(0, 1) == Lease(30, 1)
    assert dealer.deal(1, 1) == Lease(20, 1)


def test_a_short_rest_is_left_to_its_owner():
    dealer = Ranges(10, 1, workers=2, patience_seconds=3600.0)
    for _ in range(5):
        dealer.deal(0, 1)
    assert dealer.deal(0, 1) is None
    assert dealer.deal(1, 1) == Lease(5, 1)


def test_the_rest_of_an_owner_who_is_away_is_taken():
    dealer = Ranges(10, 1, workers=2, patience_seconds=0.0)
    assert sorted(steps_of([dealer.deal(0, 1) for _ in range(10)])) == list(range(10))


def test_a_worker_has_the_next_steps_of_its_own_stream():
    dealer = Streams(2)
    assert [dealer.deal(worker, 4) for worker in (0, 1, 1, 0)] == [
        Lease(0, 4, 0),
        Lease(0, 4, 1),
        Lease(4, 4, 1),
        Lease(4, 4, 0),
    ]


def test_a_worker_whose_stream_has_ended_goes_on_with_the_one_that_is_least_far():
    dealer = Streams(3)
    for worker in (0, 1, 1, 2):
        dealer.deal(worker, 1)
    assert not dealer.end(Lease(0, 1, 0))
    assert [dealer.deal(0, 1).stream for _ in range(3)] == [2, 1, 2]


def test_a_pass_over_streams_ends_with_the_last_of_them():
    dealer = Streams(2)
    assert [dealer.end(Lease(0, 1, stream)) for stream in (1, 1, 0)] == [False, False, True]
    assert dealer.deal(1, 4).steps == 0


def test_parts_that_follow_their_workers_speed_cover_the_pass_and_end_at_its_end():
    """The second worker takes 9 times as long, so it gets sqrt(5 / 9) of what the other does; 20 steps in all."""
    sizes = PartSizes()
    sizes.note(0, 1.0)
    dealer = Paced(20, 4, sizes)
    sizes.note(1, 9.0)
    leases = [dealer.deal(worker, 8) for worker in (0, 1, 0, 1, 0)]
    assert [lease.steps for lease in leases] == [5, 3, 5, 3, 4]
    assert [lease.first for lease in leases] == [0, 5, 8, 13, 16]
    assert dealer.has_dealt_all
    assert dealer.deal(1, 8) == Lease(20, 0), "which a worker can look for"
