"""The formulas against numbers worked out by hand, and against a simulation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfdist.planning import CostModel, Failures, Link, Machines, Workload, plan, scaling
from tfdist.planning.collectives import all_reduce_seconds, exposed_seconds, ring_seconds, sent_bytes, tree_seconds
from tfdist.planning.delays import checkpoint_interval, useful_share, waiting_seconds
from tfdist.planning.simulator import simulated_useful_share, simulated_waiting

pytestmark = pytest.mark.unit

GIGABIT = Link(125e6, 1e-4)
FAST = Link(100e9, 1e-6)
FOUR = Machines(4, 1, GIGABIT, FAST)
#: 100 MB of gradients, a step of 0.3 s, 0.2 of it backward.
WORK = Workload(0.3, (25e6,) * 4, bucket_bytes=25e6)


def test_a_ring():
    """Six messages of a quarter: 6 * (0.1 ms + 25 MB / 125 MB/s)."""
    assert ring_seconds(100e6, 4, GIGABIT) == pytest.approx(1.2006)
    assert ring_seconds(100e6, 1, GIGABIT) == 0


def test_trees_take_over_where_a_ring_is_too_long():
    assert tree_seconds(4e3, 1024, GIGABIT) == pytest.approx(20 * 1e-4 + 8e3 / 125e6)
    many = replace(FOUR, hosts=1024)
    assert all_reduce_seconds(4e3, many) == pytest.approx(tree_seconds(4e3, 1024, GIGABIT))
    assert all_reduce_seconds(100e6, FOUR) == pytest.approx(ring_seconds(100e6, 4, GIGABIT))


def test_devices_of_a_host_share_its_network():
    """So the network carries as much for eight devices as for one."""
    eight = replace(FOUR, devices_per_host=8)
    inside = ring_seconds(100e6, 8, FAST)
    assert all_reduce_seconds(100e6, eight) - all_reduce_seconds(100e6, FOUR) == pytest.approx(inside)
    assert sent_bytes(100e6, eight) == sent_bytes(100e6, FOUR) == pytest.approx(150e6)


def test_gradients_come_in_the_order_of_the_backward_pass():
    """The last layer first; large ones are cut and small ones joined."""
    work = Workload(0.3, (1e6, 2e6, 9e6), backward_weights=(2.0, 1.0, 1.0), bucket_bytes=4e6)
    assert list(work.buckets()) == [
        (pytest.approx(0.15), 4e6),
        (pytest.approx(0.15), 4e6),
        (pytest.approx(0.0), 4e6),
    ]
    assert sum(size for _, size in work.buckets()) == work.gradient_bytes == 12e6


def test_what_the_backward_pass_hides():
    """Buckets at 0.15, 0.1, 0.05 and 0 s before its end: of 0.04 s only the last is seen, of 0.1 s all."""
    buckets = list(WORK.buckets())
    assert exposed_seconds(buckets, lambda size: 0.04) == pytest.approx(0.04)
    assert exposed_seconds(buckets, lambda size: 0.1) == pytest.approx(0.4 - 0.15)


def test_one_device_has_nothing_to_wait_for():
    one = CostModel(WORK, Machines(1, 1, GIGABIT, FAST, variation=0.1)).synchronous()
    assert (one.step_seconds, one.efficiency, one.bottleneck) == (pytest.approx(0.3), pytest.approx(1.0), "none")


def test_each_method_sends_what_it_must():
    model = CostModel(WORK, FOUR)
    full = model.synchronous()
    assert full.sent_bytes == pytest.approx(150e6)
    assert model.synchronous(wire_share=0.5).sent_bytes == pytest.approx(75e6)
    assert model.synchronous(micro_batches=4).sent_bytes == pytest.approx(37.5e6)
    assert model.sharded().sent_bytes == pytest.approx(225e6)
    assert model.local_sgd(10).sent_bytes == pytest.approx(15e6)
    assert model.parameter_server(2).sent_bytes == pytest.approx(100e6)
    assert full.bottleneck == "network"
    assert model.synchronous(overlap=False).step_seconds == pytest.approx(0.3 + 4 * ring_seconds(25e6, 4, GIGABIT))


def test_small_exchanges_are_seen_whatever_is_hidden():
    """Each four messages of 0.1 ms, in every micro-batch: two trees, each of height two, there and back."""
    small = replace(WORK, small_exchanges=2)
    for options in ({}, {"overlap": False}, {"micro_batches": 4}):
        without = CostModel(WORK, FOUR).synchronous(**options).step_seconds
        assert CostModel(small, FOUR).synchronous(**options).step_seconds == pytest.approx(without + 2 * 4e-4)


def test_servers_that_are_too_few_hold_up_all():
    """Twelve workers ask one server for 12 * 0.8 s of sending a step, and four servers for a quarter of it."""
    model = CostModel(WORK, replace(FOUR, hosts=12))
    assert model.parameter_server(1).step_seconds == pytest.approx(9.6)
    assert model.parameter_server(4).step_seconds == pytest.approx(2.4)
    assert model.parameter_server(12).step_seconds == pytest.approx(0.3 + 2 * (0.8 + 1e-4))


@pytest.mark.parametrize("devices", [2, 16, 512])
@pytest.mark.parametrize("every", [1, 4])
def test_stragglers_as_in_a_simulation(devices, every):
    """To 0.2% of a step; 400 rounds of a maximum whose spread is at most 0.05 give it to 0.1%."""
    machines = Machines(1, devices, GIGABIT, FAST, variation=0.05)
    formula = waiting_seconds(1.0, 0.05, devices, every)
    assert formula == pytest.approx(simulated_waiting(1.0, machines, every=every, rounds=400), abs=0.005)
    assert formula > 0


def test_failures_as_in_a_simulation():
    """500 hosts, of which each fails once in 1,000 hours: one of them every two hours. 3,000 failures, to 2%."""
    machines = replace(FOUR, hosts=500, seconds_between_failures=3.6e6)
    failures = Failures(checkpoint_seconds=10, restart_seconds=180)
    between = machines.seconds_between_job_failures()
    assert between == 7200
    interval = checkpoint_interval(between, 10)
    formula = useful_share(between, 10, 180)
    simulated = simulated_useful_share(machines, failures, interval, job_seconds=3000 * between)
    assert formula == pytest.approx(simulated, rel=0.02)
    assert simulated < 0.95
    for other in (interval / 4, interval * 4):
        assert simulated_useful_share(machines, failures, other, job_seconds=3000 * between) < simulated


def test_ten_thousand_workers_that_fail_are_failures_problem():
    machines = Machines(10_000, 1, FAST, FAST, 0.0, seconds_between_failures=3.6e6)
    assert CostModel(WORK, machines).synchronous().bottleneck == "failures"


def test_exactness_is_given_up_for_something_only():
    fast_network = Machines(16, 8, FAST, FAST, 0.02)
    assert plan(WORK, fast_network).best.method == "all-reduce"
    slow = plan(WORK, replace(fast_network, network=GIGABIT))
    assert slow.best.method == "local SGD, every 16 steps"
    assert "times as fast as all-reduce; replicas differ" in slow.reason


def test_what_does_not_fit_is_split():
    """70 billion parameters with Adam are 1,120 GB: 14 devices of 80."""
    work = Workload.of_parameters(70e9, 10.0)
    machines = Machines(8, 8, FAST, FAST)
    found = plan(work, machines, device_bytes=80e9)
    assert found.best.strategy == "HybridParallelStrategy"
    assert [one.remark for one in found.predictions if one is not found.best] == ["does not fit on a device"] * 3
    with pytest.raises(ValueError, match="Received: 1120 GB, and 320 GB of memory"):
        plan(work, replace(machines, hosts=1, devices_per_host=4), device_bytes=80e9)


def test_efficiency_falls_with_the_number_of_hosts():
    found = scaling(WORK, replace(FOUR, variation=0.02, seconds_between_failures=3.6e6), [1, 2, 8, 64, 512, 8192])
    for method, values in found.items():
        assert values == sorted(values, reverse=True), method
        assert 0 < values[-1] < values[0] <= 1, method
