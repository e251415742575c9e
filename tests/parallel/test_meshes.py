"""Which parts of tensors and which rows of batches a process of a mesh has."""

from __future__ import annotations

import itertools

import pytest
from tensorflow.experimental import dtensor

from tfdist.data.sharding import ShardOptions
from tfdist.layouts.mesh_axes import MeshAxes
from tfdist.parallel.meshes import is_whole_here, make_mesh, share_of_batches, whole_here
from tfdist.parallel.transfer import layout_of, parts_of

pytestmark = pytest.mark.unit


def meshes(sizes: dict[str, int], processes: int) -> list[dtensor.Mesh]:
    """As each process sees it."""
    axes = MeshAxes(sizes)
    names = [f"CPU:{index}" for index in range(axes.num_devices // processes)]
    return [make_mesh(axes, names, job="worker", index=index) for index in range(processes)]


@pytest.mark.parametrize(
    "sizes, processes, shares",
    [
        ({"batch": 2, "model": 2}, 1, [(1, 0)]),
        ({"batch": 2, "model": 2}, 2, [(2, 0), (2, 1)]),
        ({"model": 2, "batch": 2}, 2, [(1, 0), (1, 0)]),
        ({"batch": 2, "model": 2}, 4, [(2, 0), (2, 0), (2, 1), (2, 1)]),
        ({"model": 2, "batch": 2}, 4, [(2, 0), (2, 1), (2, 0), (2, 1)]),
        ({"batch": 4}, 2, [(2, 0), (2, 1)]),
        ({"model": 4}, 2, [(1, 0), (1, 0)]),
        ({"model": 2, "batch": 4}, 4, [(2, 0), (2, 1), (2, 0), (2, 1)]),
        # The second of three parts of a batch is on both.
        ({"batch": 3, "model": 2}, 2, [(1, 0), (1, 0)]),
    ],
)
def test_processes_with_the_same_rows_read_the_same(sizes, processes, shares):
    found = [share_of_batches(MeshAxes(sizes), mesh) for mesh in meshes(sizes, processes)]
    assert found == [ShardOptions(*share) for share in shares]


@pytest.mark.parametrize("sizes", [{"a": 2, "b": 2}, {"a": 3, "b": 2, "c": 2}, {"a": 2, "b": 6}])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_what_is_whole_in_each_process(sizes, processes):
    """Against the parts that each process has, of a tensor with a number in each part."""
    seen = meshes(sizes, processes)
    for first, second in itertools.product([None, *sizes], repeat=2):
        if first is not None and first == second:
            continue
        shape = [sizes.get(first, 1), sizes.get(second, 1)]
        for mesh in seen:
            layout = layout_of(mesh, (first, second))
            assert is_whole_here(layout) == all(_has_all(one, (first, second), shape) for one in seen)
            gathered = whole_here(layout)
            assert is_whole_here(gathered)
            assert not is_whole_here(layout) or gathered == layout


def _has_all(mesh, spec, shape):
    parts = {tuple((one.start, one.stop) for one in part) for part in parts_of(layout_of(mesh, spec), shape)}
    return len(parts) == shape[0] * shape[1]


def test_what_lies_within_a_process_stays_split():
    """Of both axes, only the one between processes is gathered."""
    mesh = meshes({"batch": 2, "model": 2}, 2)[0]
    assert whole_here(layout_of(mesh, ("model", "batch"))) == layout_of(mesh, ("model", None))
