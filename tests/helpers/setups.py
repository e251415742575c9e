"""Where a case runs: one device, MirroredStrategy on logical CPUs, or several workers; tfdist or stock TensorFlow."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: Processes of each set-up; 0 is one process without TF_CONFIG.
WORKERS = {
    "one_device": 0,
    "one_device_strategy": 0,
    "no_strategy": 0,
    "mirrored2": 0,
    "mirrored3": 0,
    "workers2": 2,
    "workers3": 3,
    "parameter_server": 0,
    "parameter_server2": 0,
    "hybrid": 0,
    "hybrid_data": 0,
    "hybrid_workers2": 2,
}

#: Meshes of four logical CPUs: tensors and FSDP together, data parallelism alone, and tensors split over two processes.
HYBRID: dict[str, dict[str, Any]] = {
    "hybrid": {
        "mesh": {"batch": 2, "model": 2},
        "layout_map": {r".*dense[_0-9]*/kernel": (None, "model"), r".*embeddings": (None, "model")},
        "zero_stage": 3,
    },
    "hybrid_data": {"mesh": {"batch": 4}},
    "hybrid_workers2": {
        "mesh": {"model": 2, "batch": 2},
        "layout_map": {r".*dense[_0-9]*/kernel": (None, "model"), r".*embeddings": (None, "model")},
        "zero_stage": 3,
    },
}

#: Processes of mpiexec, which may not be there; see tests/strategies/test_mpi.py.
RANKS = {"mpi2": 2, "mpi3": 3}

_servers = contextlib.ExitStack()


@dataclass
class Setup:
    """A strategy, or None for one device, and short ways to build, train and report a model under it."""

    strategy: Any
    name: str = ""

    @classmethod
    def named(cls, name: str, *, stock: bool = False) -> Setup:
        """Make the strategy of a set-up."""
        if name in ("one_device", "no_strategy"):
            return cls(None, name)
        import tfdist

        if name == "one_device_strategy":
            return cls(tfdist.OneDeviceStrategy(), name)

        if name.startswith("parameter_server"):
            # Servers end with this process. One execution at a time: steps follow each other as on one device.
            replicas = int(name.removeprefix("parameter_server") or 1)
            cluster = _servers.enter_context(tfdist.cluster.local(workers=1, ps=2, cpus_per_worker=replicas))
            strategy = tfdist.ParameterServerStrategy(cluster, max_in_flight=1, replicas_per_worker=replicas)
            return cls(strategy, name)

        if name in HYBRID:
            _cut_cpu(4 // max(1, WORKERS[name]))
            return cls(tfdist.HybridParallelStrategy(**HYBRID[name]), name)

        if name in RANKS:
            return cls(tfdist.MultiWorkerMirroredStrategy(communication="mpi"), name)

        family = tf.distribute if stock else tfdist
        if name.startswith("workers"):
            return cls(family.MultiWorkerMirroredStrategy(), name)
        replicas = int(name.removeprefix("mirrored"))
        _cut_cpu(replicas)
        return cls(family.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]), name)

    @property
    def is_reference(self) -> bool:
        """Whether it is what the others are compared with: plain Keras on one device."""
        return self.strategy is None and self.name != "no_strategy"

    @property
    def is_stock(self) -> bool:
        """Whether the strategy is TensorFlow's own."""
        return self.strategy is not None and not type(self.strategy).__module__.startswith("tfdist.")

    @property
    def replicas(self) -> int:
        """Replicas in sync."""
        return 1 if self.strategy is None else self.strategy.num_replicas_in_sync

    def scope(self) -> Any:
        """The strategy's scope, with the seeds set that all set-ups share."""
        keras.utils.set_random_seed(7)
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def classifier(self, optimizer: Any = "sgd", *, loss: Any = None, **compile_options: Any) -> keras.Model:
        """Six features, eight hidden units, three classes; `optimizer` may be a function that makes one."""
        with self.scope():
            model = keras.Sequential(
                [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)]
            )
            return compiled(model, optimizer, loss, **compile_options)


def _cut_cpu(count: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def compiled(model: keras.Model, optimizer: Any = "sgd", loss: Any = None, **options: Any) -> keras.Model:
    """Compile for classification; to be called in a scope."""
    options.setdefault("metrics", ["accuracy"])
    made = optimizer() if callable(optimizer) else optimizer
    if loss is None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(made, loss, **options)
    return model


def features(rows: int) -> np.ndarray:
    """Normal features, shape [rows, 6], float32."""
    return np.random.RandomState(0).randn(rows, 6).astype("float32")


def labels(rows: int) -> np.ndarray:
    """Classes 0..2, shape [rows], int64."""
    return np.random.RandomState(1).randint(0, 3, rows)


def batches(rows: int, batch_size: int) -> tf.data.Dataset:
    """(features, labels) in global batches."""
    return tf.data.Dataset.from_tensor_slices((features(rows), labels(rows))).batch(batch_size)


def weights(model: keras.Model) -> np.ndarray:
    """All weights, one after another."""
    return np.concatenate([w.ravel() for w in model.get_weights()])


def report(model: keras.Model, history: Any = None, **more: Any) -> dict[str, Any]:
    """What is compared with one device."""
    result = {"weights": weights(model), **more}
    if history is not None:
        result |= {f"history {name}": np.asarray(values) for name, values in history.history.items()}
    return result
