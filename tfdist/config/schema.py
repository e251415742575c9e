"""What a training configuration may hold. The names of the fields are the keys of the YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from tfdist.errors import ConfigError


@dataclass
class Part:
    """Something to make: what, and its arguments. `part: name` alone is `part: {name: name}`.

    Args:
        name: Of a Keras class or a tfdist strategy, or where a function of yours is:
            "package.module:function", or "path/file.py:function" from the file's own folder.
        options: Keyword arguments.
    """

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


_OF_WORKERS = ("MultiWorkerMirroredStrategy", "LocalSGDStrategy", "ParameterServerStrategy")


@dataclass
class Launch:
    """The processes of this machine that train together.

    Args:
        workers: How many. More than one need a strategy of several workers.
        ps: Parameter servers, for `strategy: ParameterServerStrategy`; a chief is started with them.
        mpi: Whether the workers talk through MPI, see docs/mpi.md.
    """

    workers: int = 1
    ps: int = 0
    mpi: bool = False

    def __post_init__(self) -> None:
        check_at_least("launch.workers", self.workers, 1)
        check_at_least("launch.ps", self.ps, 0)

    @property
    def starts_processes(self) -> bool:
        """Whether this process alone isn't enough."""
        return self.workers > 1 or self.ps > 0


@dataclass
class TrainConfig:
    """One training.

    Args:
        model: A function that returns a Keras model.
        data: A function of `batch_size` that returns batches of (inputs, targets).
        validation_data: The same for the data to evaluate on after each epoch.
        strategy: Without one, training is Keras' own on one device.
        optimizer: A class of keras.optimizers.
        loss: A class of keras.losses, or its lower-case name.
        metrics: Classes of keras.metrics, or names as `compile` takes them.
        callbacks: Classes of keras.callbacks.
        epochs: How often to go through the data.
        steps_per_epoch: Batches of an epoch, for data without an end.
        batch_size: Rows of a global batch, of all replicas together.
        seed: Of initial values, dropout and shuffling.
        logical_cpus: Devices to cut the CPU into, to try replicas on a machine without GPUs.
        save: Where to write the trained model, a .keras file.
        launch: Processes to start, unless TF_CONFIG or mpiexec says that they were started already.
    """

    model: Part = field(default_factory=Part)
    data: Part = field(default_factory=Part)
    validation_data: Part | None = None
    strategy: Part | None = None
    optimizer: Part = field(default_factory=lambda: Part("adam"))
    loss: Part = field(default_factory=Part)
    metrics: list[Part] = field(default_factory=list)
    callbacks: list[Part] = field(default_factory=list)
    epochs: int = 1
    steps_per_epoch: int | None = None
    batch_size: int = 32
    seed: int = 0
    logical_cpus: int = 1
    save: str | None = None
    launch: Launch = field(default_factory=Launch)

    def __post_init__(self) -> None:
        check_at_least("epochs", self.epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("seed", self.seed, 0)
        check_at_least("logical_cpus", self.logical_cpus, 1)
        if self.steps_per_epoch is not None:
            check_at_least("steps_per_epoch", self.steps_per_epoch, 1)
        strategy = self.strategy.name if self.strategy else None
        if self.launch.ps > 0 and strategy != "ParameterServerStrategy":
            raise ConfigError(
                "Parameter servers need strategy: ParameterServerStrategy. Received: "
                f"strategy={strategy!r}, launch.ps={self.launch.ps}. Change one of them."
            )
        if self.launch.workers > 1 and strategy not in _OF_WORKERS:
            raise ConfigError(
                f"Several workers need strategy: {' or '.join(_OF_WORKERS)}. Received: "
                f"strategy={strategy!r}, launch.workers={self.launch.workers}. Change one of them."
            )


def check_at_least(key: str, value: int, least: int) -> None:
    """Raises ConfigError if the value of a key is too small."""
    if value < least:
        raise ConfigError(
            f"{key} must be at least {least}. Received: {key}={value}. Correct it, or remove the "
            "key to get the default."
        )
