"""What the cost model says of jobs whose speed and setting are public, to 10 points of efficiency.

Sources: Horovod's documentation ("Benchmarks": 128 servers with 4 Pascal GPUs each, RoCE-capable network of 25 Gbit/s);
Goyal et al., "Accurate, Large Minibatch SGD", 2017 (32 servers with 8 P100 each, 50 Gbit/s Ethernet; about 90% from 8
to 256 GPUs). Images a second of one P100 are those that TensorFlow's benchmarks published for batches of 64 (of 32 for
Goyal's ResNet-50); parameters are those of the models.
"""

from __future__ import annotations

import pytest

from tfdist.planning import CostModel, Link, Machines, Workload

pytestmark = pytest.mark.unit

POINTS = 0.10
#: Of a step's time on machines that do nothing else; 0 to 0.03 move the results by 4 points.
VARIATION = 0.025
#: RDMA's share of the wire.
RDMA = 0.9
PCIE = Link(10e9, 10e-6)
NVLINK = Link(40e9, 10e-6)
# Thirteen convolutions of which each takes about as long as any other, and three dense layers, which take little.
VGG_16 = (1.7e3, 36.9e3, 73.9e3, 147.6e3, 295.2e3, *(590.1e3,) * 2, 1.18e6, *(2.36e6,) * 5, 102.76e6, 16.78e6, 4.1e6)
VGG_16_TIMES = (1.0,) * 13 + (0.1, 0.03, 0.01)


def horovod(parameters: tuple[float, ...], images_per_second: float, times: tuple[float, ...] | None) -> CostModel:
    """It exchanges what has come together in 5 ms, which is 16 MB in the middle of these models."""
    sizes = tuple(4 * count for count in parameters)
    work = Workload(64 / images_per_second, sizes, backward_weights=times, bucket_bytes=16e6)
    network = Link(25e9 / 8 * RDMA, 25e-6)
    return CostModel(work, Machines(128, 4, network, PCIE, VARIATION))


@pytest.mark.parametrize(
    "parameters, images_per_second, times, efficiency",
    [
        pytest.param((23.8e6 / 94,) * 94, 142, None, 0.90, id="Inception-V3"),
        pytest.param((44.6e6 / 104,) * 104, 132, None, 0.90, id="ResNet-101"),
        pytest.param(VGG_16, 154, VGG_16_TIMES, 0.68, id="VGG-16"),
    ],
)
def test_horovod_on_512_gpus(parameters, images_per_second, times, efficiency):
    predicted = horovod(parameters, images_per_second, times).synchronous()
    print(f"{predicted.efficiency:.3f}")
    assert predicted.efficiency == pytest.approx(efficiency, abs=POINTS)


def test_without_overlap_horovod_would_be_slower_than_published():
    """So the figures above hang on the order in which gradients are there."""
    predicted = horovod(VGG_16, 154, VGG_16_TIMES).synchronous(overlap=False)
    assert predicted.efficiency < 0.68 - POINTS


def test_goyal_on_256_gpus():
    work = Workload(32 / 219, (25.6e6 * 4 / 54,) * 54)
    network = Link(50e9 / 8 * RDMA, 25e-6)
    one, all_hosts = (
        CostModel(work, Machines(hosts, 8, network, NVLINK, VARIATION)).synchronous().step_seconds for hosts in (1, 32)
    )
    print(f"{one / all_hosts:.3f}")
    assert one / all_hosts == pytest.approx(0.90, abs=POINTS)
