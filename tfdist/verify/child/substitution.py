"""The script's strategies become one device, or the one strategy that spans the workers.

A class's `__new__` decides what making a strategy gives, so scripts may have imported the class, subclass it, or ask
for instances of it. Of both runs' strategies there is only one in the process: a script that makes several, or none,
trains under it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist.strategies.multi_worker_mirrored import MultiWorkerMirroredStrategy
from tfdist.verify.child.call_sites import CallSites
from tfdist.verify.child.seeds import share_seed

_SYNCHRONOUS = (
    tf.distribute.MirroredStrategy,
    tf.distribute.OneDeviceStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
)
_OTHERS = (
    tf.distribute.ParameterServerStrategy,
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
)
#: What a script may set before TensorFlow's first operation only; here the strategy was made before the script began.
_DEVICE_SETTINGS = (
    (tf.config, "set_logical_device_configuration"),
    (tf.config, "set_visible_devices"),
    (tf.config.experimental, "set_virtual_device_configuration"),
    (tf.config.experimental, "set_memory_growth"),
    (tf.config.threading, "set_inter_op_parallelism_threads"),
    (tf.config.threading, "set_intra_op_parallelism_threads"),
)


class WorkersStrategy(MultiWorkerMirroredStrategy):
    """Spans all workers; made once, whatever the script passes when it makes it again.

    Args:
        sites: notes where the script asks for the number of replicas.
    """

    def __init__(self, *args: Any, sites: CallSites | None = None, **kwargs: Any) -> None:
        if sites is None:
            return  # Python calls __init__ on what `__new__` gave the script
        self._sites = sites
        super().__init__(*args, **kwargs)

    @property
    def num_replicas_in_sync(self) -> int:
        """How many replicas train in step."""
        self._sites.note("replicas", "strategy.num_replicas_in_sync")
        return super().num_replicas_in_sync


def one_device() -> tf.distribute.Strategy:
    """TensorFlow's default strategy, which is none, with what tfdist's strategies have beside it."""
    strategy = tf.distribute.get_strategy()
    strategy.is_chief, strategy.num_workers, strategy.worker_index = True, 1, 0
    return strategy


def substitute(strategy: tf.distribute.Strategy, made: list[dict[str, Any]]) -> None:
    """Have every strategy that the script makes be `strategy`.

    Args:
        strategy: what the script gets.
        made: takes a description of each strategy that the script makes.
    """
    for class_ in _SYNCHRONOUS:
        class_.__new__ = _giving(strategy, made)
    for class_ in _OTHERS:
        class_.__new__ = _refusing()
    for module, name in _DEVICE_SETTINGS:
        setattr(module, name, _ignore)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Devices are those of the run."""


def _giving(strategy: tf.distribute.Strategy, made: list[dict[str, Any]]) -> Callable[..., Any]:
    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        several_workers = issubclass(cls, tf.distribute.MultiWorkerMirroredStrategy)
        made.append({"class": cls.__name__, "several_workers": several_workers})
        if "gradient_accumulation_steps" in kwargs:
            strategy.gradient_accumulation_steps = kwargs["gradient_accumulation_steps"]
        if several_workers:
            share_seed()
        return strategy

    return new


def _refusing() -> Callable[..., Any]:
    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "tfdist verify compares strategies whose replicas train in step. Expected: MirroredStrategy or "
            f"MultiWorkerMirroredStrategy. Received: {cls.__name__}. Asynchronous training has no equal on one device."
        )

    return new
