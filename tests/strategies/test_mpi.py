"""Workers that talk through MPI: exactly what one device gives, and an end that names who was lost."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.cases import Case, all_cases, runs_in
from tests.helpers.matrix import compare, start
from tests.helpers.mpi_ranks import end_of_ranks, needs_mpi
from tests.helpers.setups import RANKS
from tests.helpers.warm_processes import QUIET
from tests.strategies.programs.mpi_transport import GATHERED, SHAPES, TYPES, values
from tfdist.cluster import Cluster, Task
from tfdist.errors import ClusterError
from tfdist.strategies.communication import choose
from tfdist.strategies.mpi_buffers import Buffers

#: Sums and gathers of each kind: in loops and eagerly, dense and sparse, of other types, of unequal rows.
PICKED = {
    "mpi2": ("steps_per_execution_3", "run_eagerly", "embedding_adam", "mixed_float16", "accumulate_adam", "metrics"),
    "mpi3": ("arrays_last_batch_of_2", "batch_normalization_synchronized", "predict_any_number_of_rows", "adam"),
}
NIGHTLY = (pytest.mark.nightly,)
CELLS = [
    pytest.param(setup, case, id=f"{setup}-{case.name}", marks=() if case.name in PICKED[setup] else NIGHTLY)
    for setup in RANKS
    for case in all_cases().values()
    if runs_in(case, setup)
]
ROOT = Path(__file__).parent.parent.parent
TWO = Cluster({"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, Task("worker", 1))


def params_of(item: Any) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if item.path == request.path and "case" in params_of(item)]
    cells = [(params_of(item)["setup"], params_of(item)["case"].name) for item in items]
    cases = {setup: [case for cell, case in cells if cell == setup] for setup in RANKS}
    start({"one_device": {case for _, case in cells}, **{setup: wanted for setup, wanted in cases.items() if wanted}})


@needs_mpi
@pytest.mark.cluster
@pytest.mark.leaks("processes")  # one device, for the tests that follow
@pytest.mark.timeout(1800)  # the first case of a set-up runs all that are wanted
@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(("setup", "case"), CELLS)
def test_equals_one_device(setup: str, case: Case) -> None:
    comparison = compare(setup, case)
    assert comparison.workers_equal
    assert comparison.difference <= case.tolerance


#: Number of ranks, whether those of even and of odd numbers are taken for two hosts, whether a host's share memory.
HOSTS = {"one host": (3, False, True), "two hosts": (4, True, True), "unequal hosts": (3, True, False)}


@pytest.fixture(scope="module", params=HOSTS)
def sent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    ranks, is_split, shares = HOSTS[request.param]
    folder = tmp_path_factory.mktemp("transport")
    # Ranks that have lost one don't wait for it in MPI_Finalize, which mpiexec may take for a failure.
    program = ["-m", "tests.strategies.programs.mpi_transport", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPIR_CVAR_ODD_EVEN_CLIQUES", str(int(is_split)))
        _, said = end_of_ranks(program, ranks=ranks, log=folder / "log")
    assert len(list(folder.glob("*.pickle"))) == ranks, said
    found = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(ranks)]
    if is_split and not found[0]["library"].startswith("MPICH"):
        pytest.skip(f"{found[0]['library']} doesn't take one machine for two")
    assert {one["shares memory"] for one in found} == {shares}
    return found


@needs_mpi
@pytest.mark.cluster
@pytest.mark.parametrize("how", ["together", "one by one"])
@pytest.mark.parametrize("dtype", TYPES)
def test_sums(sent, how: str, dtype: str) -> None:
    for place, shape in enumerate(SHAPES):
        expected = sum(values(rank, shape, dtype) for rank in range(len(sent)))
        found = [one[f"{how} {dtype}"][place] for one in sent]
        np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-3 if dtype == "float32" else 1e-9)
        assert found[0].shape == shape and found[0].dtype == dtype
        assert all(np.array_equal(found[0], other) for other in found[1:]), "not the same bits on all ranks"
    assert all(one[f"untouched {dtype}"] and one[f"aligned {dtype}"] for one in sent)


@needs_mpi
@pytest.mark.cluster
@pytest.mark.parametrize("dtype", GATHERED)
def test_gathers(sent, dtype: str) -> None:
    expected = np.concatenate([values(rank, (2, 3), dtype) for rank in range(len(sent))])
    for one in sent:
        np.testing.assert_array_equal(one[f"gathered {dtype}"], expected)


@needs_mpi
@pytest.mark.cluster
def test_workers_that_do_something_else_are_told(sent) -> None:
    for one in sent:
        assert (
            "worker 0: sum of float32 [(4,)]; worker 1: sum of float32 [(4,)]; worker 2: sum of float32 [(5,)]"
            in one["disagreement"]
        )


@needs_mpi
@pytest.mark.cluster
def test_a_wait_ends_when_a_worker_is_lost(sent) -> None:
    assert [one.get("loss") for one in sent] == [*["worker 2 was killed"] * 2, *[None] * (len(sent) - 2)]


FAULTS = {
    "SIGKILL": (
        "worker 1 was killed: its process has ended without a word",
        "worker/1 failed first: killed by SIGKILL",
    ),
    "SIGSTOP": ("worker 1 has said nothing for", "worker/0 failed first"),
}


@needs_mpi
@pytest.mark.cluster
@pytest.mark.parametrize("fault", ["SIGKILL", pytest.param("SIGSTOP", marks=pytest.mark.nightly)])
def test_a_launched_job_names_who_was_lost_and_goes_on(tmp_path: Path, fault: str) -> None:
    script = ["-m", "tests.strategies.programs.mpi_job", str(tmp_path), fault]
    options = ["--mpi", "--workers=2", "--max_restarts=1", f"--log_dir={tmp_path}"]
    command = [sys.executable, "-m", "tfdist", "launch", *options, *script]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=250)
    survivor, launcher = FAULTS[fault]
    assert done.returncode == 0, done.stderr[-5000:]
    assert launcher in done.stderr
    assert (
        f"Expected: all 2 workers until training ends. Received: {survivor}" in (tmp_path / "worker-0.log").read_text()
    )
    assert np.array_equal(np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy"))


@needs_mpi
@pytest.mark.cluster
def test_a_configuration_launches_ranks() -> None:
    """Without which this communication is refused."""
    keys = [
        "launch.workers=2",
        "launch.mpi=true",
        "strategy.options.communication=mpi",
        "epochs=1",
        "steps_per_epoch=3",
    ]
    command = [sys.executable, "-m", "tfdist", "train", "configs/multi_worker_mirrored.yaml", *keys]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what mpiexec says."""
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)

    def set_rank(index: int, count: int) -> None:
        monkeypatch.setenv("PMI_RANK", str(index))
        monkeypatch.setenv("PMI_SIZE", str(count))

    return set_rank


@pytest.mark.unit
def test_auto_is_grpc_without_mpiexec(ranks) -> None:
    choice = choose("auto", TWO)
    assert choice.world is None and choice.why == "not started by mpiexec"


@pytest.mark.unit
def test_auto_is_grpc_where_ranks_are_other_tasks_than_workers(ranks) -> None:
    """A launcher under srun, say, with several tasks to a rank."""
    ranks(0, 2)
    choice = choose("auto", TWO)
    assert choice.world is None and choice.why == "rank 0 of 2 is worker 1 of 2"


@pytest.mark.unit
def test_mpi_without_ranks_is_refused(ranks) -> None:
    with pytest.raises(ClusterError, match=r"started by mpiexec\. Received: none of OMPI_COMM.*tfdist launch --mpi"):
        choose("mpi", TWO)


@pytest.mark.unit
def test_mpi_without_mpi4py_is_refused(ranks, monkeypatch) -> None:
    ranks(1, 2)
    monkeypatch.setattr("tfdist.cluster.mpi.is_installed", lambda: False)
    for name in ("mpi4py", "mpi4py.MPI"):
        monkeypatch.setitem(sys.modules, name, None)  # can't be imported then
    with pytest.raises(ClusterError, match=r"rank 1 of 2, which mpiexec.*Write: pip install 'tfdist\[mpi\]'"):
        choose("mpi", TWO)


@pytest.mark.unit
def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"communication in \('auto', 'grpc', 'mpi'\). Received: communication='nccl'"):
        choose("nccl", TWO)  # type: ignore[arg-type]


@pytest.mark.unit
def test_buffers_are_used_again_when_nobody_has_a_part_of_them() -> None:
    buffers = Buffers()
    first = buffers.take(100)
    part, where = first[10:20].view("int8"), first.ctypes.data
    del first
    second = buffers.take(100)
    assert second.ctypes.data != where
    del part
    assert buffers.take(100).ctypes.data == where
    assert where % 64 == 0


@pytest.mark.unit
def test_buffers_are_used_for_less_than_they_hold_but_not_for_far_less() -> None:
    buffers = Buffers()
    where = buffers.take(1000).ctypes.data
    held = [buffers.take(700), buffers.take(100)]
    assert [one.ctypes.data == where for one in held] == [True, False]
    assert [len(one) for one in held] == [700, 100]
