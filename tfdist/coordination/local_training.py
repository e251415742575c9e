"""Training of a worker's own parameters, in variables that stay in its process.

They are found by name, so a worker that starts anew has none, and pulls. The optimizer's slots and its count of steps
are the worker's own too; they stay with it for as long as it lives. Schedules of learning rates go by the steps of all
workers, as known at the last meeting, and the worker's own since then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfdist._compat.keras_optimizers import leaves_of, scheduled_by, slots_of, step_count_of
from tfdist._compat.keras_packed_variables import pushed, read_whole
from tfdist._compat.keras_worker_variables import centre_of, named_variable, own_variable, standing_for
from tfdist._compat.tensorflow_sharded_variables import is_sharded
from tfdist.coordination.pushes import Pushes
from tfdist.updates import LocalPolicy

Update = Callable[[list[Any], list[Any]], None]


class LocalTraining:
    """Of one train function; made while it is traced. It is what policies see of a worker, `tfdist.updates.Local`.

    Args:
        policy: What is done in a step.
        pushes: Takes note of meetings, and of changes for the chief's average.
        optimizer: Keras optimizer of the model.
        variables: Keras variables that are trained.
        name: Of its variables on the worker.

    Raises:
        ValueError: variables are in shards, which no worker has room for.
    """

    def __init__(self, policy: LocalPolicy, pushes: Pushes, optimizer: Any, variables: list[Any], name: str) -> None:
        self._policy, self._pushes, self._variables, self._name = policy, pushes, variables, name
        self._leaves = leaves_of(optimizer)
        self._slots = [slot for leaf in self._leaves for slot in slots_of(leaf)]
        self._counts = [step_count_of(leaf) for leaf in self._leaves]
        self._centre, self._slots_of_centre = centre_of(variables), centre_of(self._slots)
        self._counts_of_centre = centre_of(self._counts)
        if sharded := [variable.path for variable in variables if is_sharded(variable)]:
            raise ValueError(
                f"Under {type(policy).__name__} each worker keeps a copy of all parameters. Received: variables in "
                f"shards, {sharded}. Leave out variable_partitioner, or use another policy."
            )
        #: See `Local`; variables of the graph that is traced.
        self.own: list[Any] = []
        self.start: list[Any] = []
        self.velocity: list[Any] = []
        self._update: Callable[[], None] = lambda: None

    def begin(self, number: tf.Tensor) -> None:
        """Before the first step of an execution.

        Args:
            number: Of the `fit`, for policies that keep parameters for so long; an int64 scalar.
        """
        self.own, self.start = self._copies("own"), self._copies("start")
        self.velocity = self._copies("velocity") if self._policy.has_velocity else []
        pulled_for = self._named([], tf.int64, "pulled_for")
        is_known = tf.raw_ops.VarIsInitializedOp(resource=pulled_for.handle)
        tf.cond(is_known, lambda: tf.constant(0), self._begin_slots)
        if self._policy.keeps_parameters:
            last = tf.cond(is_known, pulled_for.read_value, lambda: tf.constant(-1, tf.int64))
            tf.cond(tf.equal(last, number), lambda: tf.constant(0), self._pulled)
        else:
            self.pull()
        pulled_for.assign(number, read_value=False)

    def _copies(self, kind: str) -> list[Any]:
        return [own_variable(one, f"{self._name}/{kind}/{index}") for index, one in enumerate(self._centre)]

    def _named(self, shape: Any, dtype: tf.DType, name: str) -> Any:
        return named_variable(shape, dtype, f"{self._name}/{name}")

    def _begin_slots(self) -> tf.Tensor:
        for own, value in zip(self._own_slots(), read_whole(self._slots_of_centre), strict=True):
            own.assign(value, read_value=False)
        for own in self._own_counts():
            own.assign(tf.zeros(own.shape, own.dtype), read_value=False)
        return tf.constant(0)

    def _own_slots(self) -> list[Any]:
        return [own_variable(one, f"{self._name}/slot/{index}") for index, one in enumerate(self._slots_of_centre)]

    def _own_counts(self) -> list[Any]:
        return [own_variable(one, f"{self._name}/count/{index}") for index, one in enumerate(self._counts_of_centre)]

    @property
    def _global_counts(self) -> list[Any]:
        """Of all workers' steps, one a leaf."""
        return [self._named([], one.dtype, f"global_count/{index}") for index, one in enumerate(self._counts_of_centre)]

    @property
    def _steps(self) -> Any:
        """Since the last meeting."""
        return self._named([], tf.int64, "steps")

    @property
    def _weight(self) -> Any:
        """Of the batches since the last meeting."""
        return self._named([], tf.float64, "weight")

    @property
    def _version(self) -> Any:
        """Of the centre at the last meeting."""
        return self._named([], tf.int64, "version")

    def _pulled(self) -> tf.Tensor:
        self.pull()
        return tf.constant(0)

    def pull(self) -> None:
        """See `Local`."""
        version = self._pushes.read_version()
        with tf.control_dependencies([version]):
            values = read_whole(self._centre)
        for own, start, value in zip(self.own, self.start, values, strict=True):
            own.assign(value, read_value=False)
            start.assign(value, read_value=False)
        for velocity in self.velocity:
            velocity.assign(tf.zeros(velocity.shape, velocity.dtype), read_value=False)
        self._version.assign(version, read_value=False)
        self._forget_steps()

    def _forget_steps(self) -> None:
        self._steps.assign(0, read_value=False)
        self._weight.assign(0.0, read_value=False)
        for known, count in zip(self._global_counts, self._counts_of_centre, strict=True):
            known.assign(count.read_value(), read_value=False)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keras' variables stand for the worker's own in here."""
        own = [*self.own, *self._own_slots(), *self._own_counts()]
        with standing_for([*self._variables, *self._slots, *self._counts], own):
            yield

    def step(self, gradients: list[Any], variables: list[Any], update: Update, weight: tf.Tensor) -> None:
        """Trace what is done with a step's gradients, of all replicas of the worker.

        Args:
            gradients: One a variable.
            variables: Keras variables.
            update: Applies them.
            weight: Of the batch.

        Raises:
            ValueError: the gradients are of other variables than the model's.
        """
        known = {id(variable) for variable in self._variables}
        if strangers := [variable.path for variable in variables if id(variable) not in known]:
            raise ValueError(
                f"{type(self._policy).__name__} trains the model's trainable variables, with its compiled optimizer. "
                f"Received: gradients of {strangers}. Leave out update, or train these variables by themselves."
            )

        def apply() -> None:
            counts = self._global_counts
            with scheduled_by(dict(zip(self._leaves, (one.read_value() for one in counts), strict=True))):
                update(gradients, variables)
            for count in counts:
                count.assign_add(tf.ones([], count.dtype), read_value=False)
            self._steps.assign_add(1, read_value=False)
            self._weight.assign_add(tf.cast(weight, tf.float64), read_value=False)

        self._update = apply
        self._policy.step(self)

    def finish(self) -> None:
        """After the last step of an execution."""
        self._policy.finish(self)

    # See `Local`.

    def update(self) -> None:
        """See `Local`."""
        self._update()

    def meet_after(self, steps: int, meet: Callable[[tf.Tensor], None]) -> None:
        """See `Local`."""

        def met() -> tf.Tensor:
            meet(tf.cast(made, tf.float32))
            self._forget_steps()
            return tf.constant(0)

        made = self._steps.read_value()
        tf.cond(made >= steps, met, lambda: tf.constant(0))

    def read_centre(self) -> list[tf.Tensor]:
        """See `Local`."""
        return read_whole(self._centre)

    def add_to_centre(self, changes: list[tf.Tensor]) -> None:
        """See `Local`."""
        if self._pushes.collects:
            self._pushes.collect(changes, self._variables, self._weight.read_value(), add)
            return
        version = self._pushes.arrive(changes, self._version.read_value())
        self._version.assign(version + 1, read_value=False)
        for change, variable in pushed(list(zip(changes, self._centre, strict=True))):
            variable.assign_add(change)


def add(changes: list[Any], variables: list[Any]) -> None:
    """Add to Keras variables where they are."""
    for change, variable in zip(changes, variables, strict=True):
        variable.assign_add(change)
