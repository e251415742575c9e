"""Sums and gathers of ranks: `mpiexec -n 3 python -m tests.strategies.programs.mpi_transport FOLDER`.

Ranks of a host share memory even if they have fewer cores.
"""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tfdist.cluster import mpi
from tfdist.errors import TaskLostError, WorkersDisagreeError
from tfdist.strategies import mpi_shared
from tfdist.strategies.mpi_transport import MPITransport

#: The last two are added up in memory that the ranks of a host share, the last one in several turns.
SHAPES = [(), (1,), (3, 5), (0,), (257,), (100_000,), (700_001,)]
TYPES = ("float32", "float64", "int32", "int64")
GATHERED = (*TYPES, "float16", "bool")


def values(rank: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers whose sum depends on the order in which they are added up, unless they are integers."""
    return np.asarray(1000 * np.random.RandomState(rank).randn(*shape)).astype(dtype)


def main(folder: Path) -> None:
    world, lost = mpi.world(), threading.Event()

    def check() -> None:
        if lost.is_set():
            raise TaskLostError("worker 2 was killed")

    mpi_shared.has_core_each = lambda host: True
    rank, transport = world.Get_rank(), MPITransport(world, check)
    found: dict[str, Any] = {"library": mpi.library(), "shares memory": transport._shared.is_possible}
    for dtype in TYPES:
        arrays = [values(rank, shape, dtype) for shape in SHAPES]
        before = [array.copy() for array in arrays]
        totals = transport.sum(*arrays)
        found[f"untouched {dtype}"] = all(map(np.array_equal, arrays, before))
        found[f"together {dtype}"] = [total.copy() for total in totals]
        found[f"one by one {dtype}"] = [transport.sum(array)[0] for array in arrays]
        # TensorFlow would copy what begins elsewhere.
        found[f"aligned {dtype}"] = all(total.ctypes.data % 64 == 0 for total in totals if total.size)
    for dtype in GATHERED:
        found[f"gathered {dtype}"] = transport.gather(values(rank, (2, 3), dtype))
    try:
        transport.sum(values(rank, (4 + rank // 2,), "float32"))
    except WorkersDisagreeError as error:
        found["disagreement"] = str(error)
    if rank < 2:
        threading.Timer(0.2, lost.set).start()
        try:
            transport.sum(values(rank, (4,), "float32"))  # rank 2 doesn't come
        except TaskLostError as error:
            found["loss"] = str(error)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    world.Barrier()  # mpiexec ends all when one ends without MPI_Finalize


if __name__ == "__main__":
    main(Path(sys.argv[1]))
