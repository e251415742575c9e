"""What decides how training goes on, read from a model at a boundary and put back into it.

Files of a checkpoint, beside the manifest:

    weights.weights.h5  weights, optimizer, sums of gradients; Keras' own file, for `load_weights` of any Keras
    weights.index, weights.data-...
                        in place of it where variables are in parts on a mesh, see shards.py
    state.npz           seeds/I                     of layers, in the model's order
                        workerW/metrics/I/R         of each replica by itself: their sums would be rounded otherwise
                        workerW/accumulators/A/NAME/R
                        workerW/compression/A/NAME/R
                        workerW/random/NAME         Python's, NumPy's, TensorFlow's
                        callbacks/...
    state.json          the place in `fit` and in the data, history, callbacks, what the model looks like
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdist._compat.keras_compression import compression_of
from tfdist._compat.keras_optimizers import accumulation_of
from tfdist._compat.keras_weight_files import WeightCopies
from tfdist._compat.random_states import get_random_states, layer_seeds, set_random_states
from tfdist.checkpoint import shards
from tfdist.checkpoint.files import CheckpointFiles
from tfdist.checkpoint.values import check_values
from tfdist.errors import CheckpointError
from tfdist.gradients.checkpoint_state import from_bytes, to_bytes
from tfdist.log import logger

WEIGHTS, ARRAYS, VALUES = "weights.weights.h5", "state.npz", "state.json"


@dataclass
class Content:
    """A checkpoint in memory.

    Attributes:
        values: of state.json.
        arrays: of state.npz.
        weights: copies.
    """

    values: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    weights: WeightCopies | None = None

    def to_files(self) -> dict[str, bytes | memoryview]:
        """Contents by file name."""
        files: dict[str, bytes | memoryview] = {
            VALUES: json.dumps(self.values, indent=1).encode(),
            ARRAYS: to_bytes(self.arrays),
        }
        if self.weights is not None:
            files[WEIGHTS] = self.weights.to_h5()
        return files

    @classmethod
    def read(cls, files: CheckpointFiles, name: str) -> Content:
        """Values and arrays; the weights stay in their file.

        Raises:
            CheckpointError: the files hold something else, as no file does that was written here.
        """
        file = ARRAYS
        try:
            arrays = from_bytes(files.path(name, ARRAYS).read_bytes())
            file = VALUES
            values = json.loads(files.path(name, VALUES).read_text())
            check_values(values, arrays)
        except (OSError, ValueError, RecursionError) as error:
            raise unusable(str(files.path(name, file)), error) from error
        return cls(values, arrays)


def unusable(path: str, error: Exception) -> CheckpointError:
    """The error for a file that is whole, and yet can't be gone on from."""
    return CheckpointError(
        f"Expected: a checkpoint that tfdist has written. Received: {path}: {error}. If you don't know who has written "
        "it, remove its folder: training then goes on from the checkpoint before."
    )


def describe_model(model: Any) -> dict[str, Any]:
    """What must be equal in the model that goes on."""
    optimizer = model.optimizer
    return {
        "optimizer": None if optimizer is None else type(optimizer).__name__,
        "variables": [[v.path, list(v.shape), str(v.dtype)] for v in model.weights],
    }


def check_model(model: Any, expected: dict[str, Any], where: str) -> None:
    """See that a checkpoint is one of this model.

    Raises:
        CheckpointError: says what differs first.
    """
    here = json.loads(json.dumps(describe_model(model)))
    found = None
    if here["optimizer"] != expected["optimizer"]:
        found = f"optimizer {expected['optimizer']}, and here {here['optimizer']}"
    elif len(here["variables"]) != len(expected["variables"]):
        found = f"{len(expected['variables'])} weights, and here {len(here['variables'])}"
    else:
        for (path, *saved), (_, *own) in zip(expected["variables"], here["variables"], strict=True):
            if saved != own and found is None:
                found = f"{path} with shape and dtype {saved}, and here {own}"
    if found:
        raise CheckpointError(
            f"Expected: a checkpoint of the model that is trained. Received: {where}, which has {found}. Use another "
            "directory for another model; weights alone are read by model.load_weights()."
        )


# A worker's own part.


def capture_own(model: Any, workers: Any, *, in_parts: bool) -> dict[str, np.ndarray]:
    """What this worker has beside what is equal on all of them.

    Args:
        model: a built model.
        workers: its strategy, or `OneProcess()`.
        in_parts: whether the workers share one mesh, on which there is one replica.
    """
    arrays: dict[str, np.ndarray] = {}
    replicas = _replica_copies(model, workers, in_parts) if workers.is_chief or not in_parts else {}
    for name, copies in replicas.items():
        for replica, copy in enumerate(copies):
            arrays[f"{name}/{replica}"] = np.array(copy.numpy())
    arrays |= {f"random/{name}": array for name, array in get_random_states().items()}
    return arrays


def capture_seeds(model: Any) -> dict[str, np.ndarray]:
    """The states of layers' seed generators, which are equal on all replicas."""
    return {f"seeds/{i}": np.array(one.numpy()) for i, one in enumerate(layer_seeds(model))}


def _replica_copies(model: Any, workers: Any, in_parts: bool) -> dict[str, list[Any]]:
    """Each replica's variable, of what replicas have apart; without sums that are with the weights."""
    found = {f"metrics/{i}": variable.value for i, variable in enumerate(model.metrics_variables)}
    for number, accumulation in enumerate(_accumulations(model)):
        for name, variable in accumulation.state.replica_variables(with_sums=not in_parts).items():
            found[f"accumulators/{number}/{name}"] = variable
    for number, compression in enumerate(_attached(model, compression_of)):
        for name, variable in compression.state.variables.items():
            found[f"compression/{number}/{name}"] = variable
    return {name: list(workers.experimental_local_results(value)) for name, value in found.items()}


def _accumulations(model: Any) -> list[Any]:
    return _attached(model, accumulation_of)


def _attached(model: Any, of: Callable[[Any], Any]) -> list[Any]:
    """What belongs to the model's optimizers, of those that have it."""
    optimizers = [model.optimizer, *(one for one in vars(model).values() if isinstance(one, keras.Optimizer))]
    unique = {id(one): one for one in optimizers}.values()
    return [found for one in unique if (found := of(one)) is not None]


def is_accumulating(model: Any) -> bool:
    """Whether micro-batches wait for an optimizer step."""
    return any(accumulation.micro_steps for accumulation in _accumulations(model))


# The way back.


def restore(model: Any, workers: Any, content: Content, folder: Path, parts: shards.Parts | None) -> None:
    """Put a checkpoint's state into a built model and this process; on every worker.

    Args:
        model: which `check_model` has found to be the same.
        workers: its strategy, or `OneProcess()`.
        content: of the checkpoint.
        folder: of the checkpoint.
        parts: of its strategy, if variables are in parts.

    Raises:
        CheckpointError: its files don't hold what the model has.
    """
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    file = shards.INDEX if (folder / shards.INDEX).exists() else WEIGHTS
    try:
        shards.load(model, folder, WEIGHTS, parts)
        file = ARRAYS
        _restore_arrays(model, workers, content, in_parts=parts is not None)
    except (OSError, ValueError, LookupError, TypeError, MemoryError, tf.errors.OpError) as error:
        raise unusable(str(folder / file), error) from error


def _restore_arrays(model: Any, workers: Any, content: Content, *, in_parts: bool) -> None:
    arrays, values = content.arrays, content.values
    same = (values["workers"], values["replicas"]) == (workers.num_workers, workers.num_replicas_in_sync)
    with workers.scope():
        for index, variable in enumerate(layer_seeds(model)):
            variable.assign(arrays[f"seeds/{index}"])
        own = _part(arrays, f"worker{workers.worker_index if same else 0}/")
        if same:
            _restore_replicas(model, workers, _part(arrays, "worker0/") if in_parts else own, in_parts)
        else:
            logger.warning(
                "the checkpoint was made by %d workers with %d replicas in all, and here are %d with %d: training goes "
                "on where it was, though not to the same bits",
                *(values["workers"], values["replicas"], workers.num_workers, workers.num_replicas_in_sync),
            )
            _restore_sums(model, workers, arrays, in_parts)
        set_random_states(_part(own, "random/"))


def _part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _restore_replicas(model: Any, workers: Any, own: dict[str, np.ndarray], in_parts: bool) -> None:
    for number, accumulation in enumerate(_accumulations(model)):
        if any(name.startswith(f"accumulators/{number}/") for name in own):
            accumulation.state.make(workers, {})
    for number, compression in enumerate(_attached(model, compression_of)):
        prefix = f"compression/{number}/"
        compression.state.make_named(workers, {name.split("/")[2] for name in own if name.startswith(prefix)})
    for name, copies in _replica_copies(model, workers, in_parts).items():
        for replica, copy in enumerate(copies):
            _assign(copy, own.get(f"{name}/{replica}"))


def _restore_sums(model: Any, workers: Any, arrays: dict[str, np.ndarray], in_parts: bool) -> None:
    """Metrics of another number of replicas: all in the chief's first one, since they are added up when they are read.

    Workers that share a mesh have them together, so each is given all.

    Sums of gradients, and of what gradients owe, are in the weights' file, added up already.
    """
    if any(compression.state.variables for compression in _attached(model, compression_of)):
        logger.info("what gradients owed is divided evenly among %d replicas", workers.num_replicas_in_sync)
    for name, copies in _replica_copies(model, workers, in_parts).items():
        if name.startswith("metrics/"):
            parts = [array for key, array in arrays.items() if key.split("/", 1)[-1].startswith(f"{name}/")]
            for replica, copy in enumerate(copies):
                is_first = (workers.is_chief or in_parts) and replica == 0
                _assign(copy, sum(parts) if is_first and parts else np.zeros(copy.shape, copy.dtype.as_numpy_dtype))


def _assign(copy: Any, array: Any) -> None:
    if array is None:
        return
    dtype = tf.as_dtype(copy.dtype).as_numpy_dtype
    # NumPy's files know no bfloat16, and give its bytes back as of no type.
    copy.assign(array.view(dtype) if array.dtype.kind == "V" else array)
