"""A tf.distribute strategy whose one replica is a whole mesh of devices.

Upstream: DTensor's strategies split over one axis only, have a replica for each device, replicate every variable, and
take batches of one size alone. A pass that combines all-reduces reads variables before they are assigned where both
happen in one function, which leaves stale slots of Adam and of momentum, and no error. `unpack` waits for the devices
without letting other threads of Python run.
Here: one replica that sees the whole batch and whole variables; DTensor splits them. What there is to decide is asked
of the strategy: `create_variable`, `distribute` and `to_mesh`. The pass is switched off by its own switch. Before
unpacking, a call that lets threads run waits, since one of them tells other processes that this one is well.
Seen in TensorFlow 2.21. Can go when a strategy of upstream takes a mesh of several axes; the switch, when the pass
keeps the order of reads and assignments; the call, when `unpack` lets threads run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.dtensor.python import api
from tensorflow.experimental import dtensor
from tensorflow.python.eager import context

#: Read by DTensor's passes when the first of them runs.
COMBINE_SWITCH = "DTENSOR_ENABLE_COMBINE_ALL_REDUCES_OPTIMIZATION"


def switch_off_combining() -> None:
    """Keep DTensor's passes from combining all-reduces, for the rest of the process.

    Raises:
        RuntimeError: the user has switched it on, or DTensor has been used before and has read the switch.
    """
    if os.environ.get(COMBINE_SWITCH, "0") != "0":
        raise RuntimeError(
            f"DTensor's pass that combines all-reduces gives wrong weights with Adam and momentum. Expected: "
            f"{COMBINE_SWITCH}=0, or that it is not set. Received: {COMBINE_SWITCH}={os.environ[COMBINE_SWITCH]!r} in "
            "the environment. Remove it."
        )
    if api._dtensor_singleton is not None and COMBINE_SWITCH not in os.environ:
        raise RuntimeError(
            "DTensor's pass that combines all-reduces gives wrong weights with Adam and momentum, and can only be "
            f"switched off before DTensor is used. Expected: {COMBINE_SWITCH}=0 in the environment, or that the "
            "strategy is made before anything else uses DTensor. Received: a process that has used it."
        )
    os.environ[COMBINE_SWITCH] = "0"


def wait_for_devices() -> None:
    """Return when all operations have ended; raises the error of one that failed."""
    context.async_wait()


class MeshStrategy(Protocol):
    """What the extended asks of the strategy."""

    #: The mesh.
    mesh: dtensor.Mesh

    def create_variable(self, initial_value: Any, like: Any, options: dict[str, Any]) -> Any:
        """A variable on the mesh; `like` is another one that it belongs to, or None."""

    def distribute(self, dataset: tf.data.Dataset) -> Any:
        """A dataset of global batches, on the mesh."""

    def on_mesh(self, value: Any) -> Any:
        """What `run` was given, on the mesh."""


class MeshReplica(tf.distribute.ReplicaContext):
    """The one replica, which sees everything."""

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """The value: there's nobody to reduce with."""
        return value

    def all_gather(self, value: Any, axis: int, options: Any = None) -> Any:
        """The value: it has all rows."""
        return value


class MeshExtended(tf.distribute.StrategyExtended):
    """The part of a strategy that TensorFlow calls.

    Args:
        strategy: to which it belongs.
        devices: names of the mesh's local devices.
    """

    def __init__(self, strategy: Any, devices: tuple[str, ...]) -> None:
        super().__init__(strategy)
        self._devices = devices

    def _strategy(self) -> Any:
        return self._container_strategy()

    def _create_variable(self, next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        for name in ("use_resource", "expected_shape", "distribute_strategy", "import_scope", "validate_shape"):
            kwargs.pop(name, None)
        like, initial_value = kwargs.pop("colocate_with", None), kwargs.pop("initial_value")
        made = self._strategy().create_variable(initial_value, like, kwargs)
        made._distribute_strategy = self._container_strategy_weakref()
        return made

    def call_for_each_replica(self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None) -> Any:
        """Call `fn` once, with what it is given on the mesh."""
        args, kwargs = tf.nest.map_structure(self._strategy().on_mesh, (args, kwargs or {}))
        with (
            MeshReplica(self._container_strategy(), replica_id_in_sync_group=0),
            dtensor.default_mesh(self._strategy().mesh),
        ):
            return fn(*args, **kwargs)

    def _update(self, var: Any, fn: Callable[..., Any], args: Any, kwargs: Any, group: bool) -> Any:
        return fn(var, *args, **kwargs)

    def _replica_ctx_update(
        self, var: Any, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, group: bool = True
    ) -> Any:
        return fn(var, *args, **(kwargs or {}))

    def _replica_ctx_all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        return value

    def _use_merge_call(self) -> bool:
        return False

    def _reduce_to(self, reduce_op: Any, value: Any, destinations: Any, options: Any) -> Any:
        return value

    def _gather_to_implementation(self, value: Any, destinations: Any, axis: int, options: Any) -> Any:
        return value

    def _local_results(self, val: Any) -> tuple[Any, ...]:
        return (val,)

    def _experimental_distribute_dataset(self, dataset: Any, options: Any) -> Any:
        return self._strategy().distribute(dataset)

    def _distribute_datasets_from_function(self, dataset_fn: Callable[..., Any], options: Any) -> Any:
        return self._strategy().distribute(dataset_fn(tf.distribute.InputContext()))

    def _experimental_distribute_values_from_function(self, value_fn: Callable[..., Any]) -> Any:
        return value_fn(tf.distribute.experimental.ValueContext(0, 1))

    def value_container(self, value: Any) -> Any:
        """The value itself."""
        return value

    def non_slot_devices(self, var_list: Any) -> tuple[str, ...]:
        """All of the mesh."""
        return self._devices

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """All of the mesh that are local."""
        return self._devices

    @property
    def parameter_devices(self) -> tuple[str, ...]:
        """All of the mesh that are local."""
        return self._devices

    @property
    def experimental_between_graph(self) -> bool:
        """One program for the whole mesh."""
        return False

    @property
    def experimental_require_static_shapes(self) -> bool:
        """DTensor knows the shape of each tensor when it compiles a function."""
        return True

    @property
    def _num_replicas_in_sync(self) -> int:
        return 1

    def _get_local_replica_id(self, replica_id_in_sync_group: int) -> int:
        return replica_id_in_sync_group

    def _in_multi_worker_mode(self) -> bool:
        return False

    def _default_device_scope(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()
