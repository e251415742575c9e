"""`python -m tests.strategies.programs.hybrid_parallel_processes FOLDER CELL ...`: a worker of a mesh of four devices.

Trains each MODEL-SPLIT-OPTIMIZER over the mesh, and on the chief on one device as well. Writes FOLDER/RANK.json: for
each cell what a hash of its results is, and on the chief the largest differences from one device.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

import tfdist
from tests.helpers.matrix import difference_of
from tests.strategies.programs.hybrid_parallel import LAYOUTS, SPLITS, trained

DEVICES = 4
#: The same meshes with their axes in the other order, so that another axis is between processes.
TURNED = {
    "tensor_data": {"mesh": {"model": 2, "batch": 2}, "layout_map": LAYOUTS},
    "tensor_fsdp": {"mesh": {"batch": 2, "model": 2}, "layout_map": LAYOUTS, "zero_stage": 3},
}


def main(folder: Path, *cells: str) -> None:
    workers = len(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"])
    devices = tfdist.layouts.logical_cpus(DEVICES // workers)
    # Made before anything is trained on one device, which may come only after the workers are connected.
    splits = {cell.split("-")[1] for cell in cells}
    strategies = {
        name: tfdist.HybridParallelStrategy(**options, devices=devices)
        for name, options in {**SPLITS, **TURNED}.items()
        if name in splits
    }
    found = {}
    for cell in cells:
        name, split, optimizer = cell.split("-")
        strategy = strategies[split]
        received = trained(name, optimizer, strategy)
        bits = b"".join(np.ascontiguousarray(received[key]).tobytes() for key in sorted(received))
        found[cell] = {"hash": hashlib.sha256(bits).hexdigest()}
        if strategy.is_chief:
            expected = trained(name, optimizer, None)
            found[cell] |= {key: difference_of(key, received[key], expected[key]) for key in expected}
            found[cell]["moved"] = float(np.abs(expected["weights"] - expected["first weights"]).max())
        keras.backend.clear_session()
        (folder / f"{strategy.worker_index}.json").write_text(json.dumps(found))
        print(cell, found[cell], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
