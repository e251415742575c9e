"""Local SGD: replicas train by themselves for H steps, then go on from the average of their weights.

With x_r the weights of replica r, n_r the rows it has trained on since the last averaging, n their sum over replicas:

    a local step     x_r <- optimizer(x_r, gradient of the mean loss of r's own rows)
    an averaging     x_r <- sum_r (n_r / n) x_r            or the outer optimizer's step, see outer.py

H = 1 with plain SGD is synchronous SGD, for any number of rows on each replica: the average of x - lr g_r is
x - lr sum_r (n_r / n) g_r.

    Stich 2019, "Local SGD Converges Fast and Communicates Little", arXiv:1805.09767
    Lin et al. 2020, "Don't Use Large Mini-Batches, Use Local SGD", arXiv:1808.07217 (warm-up, hierarchy)
    Douillard et al. 2025, "Streaming DiLoCo with overlapping communication", arXiv:2501.18512 (fragments)

The way of one step, under a strategy that has made a `LocalStep` of it:

    begin (merged)               the first step of a period keeps the weights as the anchor
      -> gradients               the replica's own, or those of the replicas of its host
      -> update                  Keras' own `apply`; a replica without rows keeps weights and momentum, yet counts
    end_step (cross-replica)     counts the step; fragments that are due are averaged, in each replica:
      -> shares                  n_r / n, one collective of a number
      -> the mean                one collective for a fragment and what goes along with it
      -> fingerprints            one collective of 8 bytes a variable

What goes along with the first fragment: what layers assigned (moving statistics), moving averages of weights, and with
inner_state="average" momentum and the like. A failure inside leaves nothing half done that a restart would see: files
are written between averagings.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_averaging import moving_averages_of, rule_state_of
from tfdist._compat.keras_optimizers import build_if_needed, trainable_variables_of
from tfdist.errors import WorkersDisagreeError
from tfdist.gradients.averaging.counters import Counters
from tfdist.gradients.averaging.equality import check_equal, explained_difference
from tfdist.gradients.averaging.fragment import Fragment, split
from tfdist.gradients.averaging.host import shared_in_host
from tfdist.gradients.averaging.local_step import LocalStep
from tfdist.gradients.averaging.options import AveragingOptions
from tfdist.gradients.averaging.overlap import Overlap
from tfdist.gradients.averaging.rowless import update_where_rows
from tfdist.gradients.averaging.state import AveragingState
from tfdist.gradients.reduction import sum_over_replicas, weighted

#: Keras' own `apply` of the optimizer: of gradients, in each replica, for variables.
Update = Callable[[list[Any], list[Any]], None]


class LocalAveraging:
    """Averages the weights of one optimizer over the replicas.

    Args:
        optimizer: a Keras optimizer that is not inside another one.
        strategy: whose replicas train by themselves.
        options: when and how.

    Attributes:
        fragments: parts of the variables, once the optimizer is built.
        counters: how far it is; None before.
        overlap: what is averaged while training goes on.
        state: what files hold of it.
    """

    def __init__(self, optimizer: Any, strategy: Any, options: AveragingOptions) -> None:
        self._optimizer, self._strategy = weakref.ref(optimizer), weakref.ref(strategy)
        self.options = options
        self.fragments: list[Fragment] = []
        self.counters: Counters | None = None
        self.overlap = Overlap(self)
        self.state = AveragingState(self)
        self._layer_state: dict[int, Any] = {}
        self._compiled: dict[Any, Any] = {}

    @property
    def optimizer(self) -> Any:
        """The optimizer whose weights are averaged."""
        return self._optimizer()

    @property
    def strategy(self) -> Any:
        """The strategy whose replicas train."""
        return self._strategy()

    @property
    def is_pending(self) -> bool:
        """Whether replicas have made steps since the last averaging; eagerly, the same on all workers."""
        return self.counters is not None and self.counters.is_pending()

    def make(self) -> Counters:
        """Make what is not there; the optimizer is built."""
        if self.counters is None:
            with tf.init_scope(), self.strategy.scope():
                parts = split(trainable_variables_of(self.optimizer), self.options.fragments)
                self.fragments = [Fragment(part, self.options) for part in parts]
                self.counters = Counters(len(parts))
            self.state.restore_pending()
        return self.counters

    def include(self, variables: list[Any]) -> None:
        """Average these too, which layers assign."""
        new = {id(variable): variable for variable in variables if id(variable) not in self._layer_state}
        if new:
            self._layer_state.update(new)
            self._compiled.clear()

    # In each replica.

    def apply_gradients(self, gradients: list[Any], variables: list[Any], update: Update) -> None:
        """Make a local step; in replica context, not in a function or conditional inside it."""
        context, step = tf.distribute.get_replica_context(), hooks.current_step()
        build_if_needed(self.optimizer, variables)
        context.merge_call(lambda _: self._begin())
        counters = self.make()
        rows, factor = tf.ones([], counters.rows.dtype), None
        if isinstance(step, LocalStep):
            rows, factor = step.rows(), step.gradient_share()
        counters.count_rows(rows)
        gradients = [None if g is None else weighted(g, factor) for g in gradients]
        has_rows = rows > 0
        if self.options.shares_gradients:
            gradients, has_rows = shared_in_host(gradients, rows)
        kept = [*variables, *rule_state_of(self.optimizer), *moving_averages_of(self.optimizer)]
        update_where_rows(lambda own: update(own, variables), gradients, has_rows, kept)

    def _average(self, index: int) -> None:
        counters, fragment, companions = self.make(), self.fragments[index], self.companions(index)
        means, has_rows = self.mean(index, fragment.values(companions), counters.rows.read_value()[index])
        fragment.go_on(companions, means, has_rows)
        counters.forget_rows(index)
        if self.options.verify_equal:
            check_equal([*fragment.variables, *companions, *fragment.state])

    def mean(self, index: int, values: list[tf.Tensor], rows: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """What a fragment and its companions go on from, of their values and this replica's rows, a float scalar.

        Returns:
            The means, and whether any replica had a row, a bool scalar.
        """
        (total,) = sum_over_replicas([rows])
        return self.fragments[index].mean(values, tf.math.divide_no_nan(rows, total)), total > 0

    def companions(self, index: int) -> list[Any]:
        """What is averaged along with a fragment, as it is."""
        if index > 0:
            return []
        variables = [*self._layer_state.values(), *moving_averages_of(self.optimizer)]
        if self.options.inner_state == "average":
            variables += rule_state_of(self.optimizer)
        return [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]

    # In cross-replica context.

    def _begin(self) -> None:
        counters = self.make()
        for index, fragment in enumerate(self.fragments):
            if fragment.outer is not None:
                is_first = tf.equal(counters.steps.read_value()[index], 0)
                tf.cond(is_first, lambda take=fragment.outer.take: self._take(take), lambda: 0)

    def _take(self, take: Callable[[], None]) -> int:
        self.in_each(take)
        return 0

    def end_step(self) -> None:
        """Count a local step of all replicas, and average what is due, unless that is done between executions."""
        counters = self.make()
        counters.count_step()
        if self.options.overlap_steps:
            return
        position = counters.position.read_value()
        for index in range(len(self.fragments)):
            due = self.options.is_due(index, position)
            if due is not False:
                tf.cond(due, lambda index=index: self._end_period(index), lambda: 0)

    def count_exchange(self) -> None:
        """A synchronous step was made."""
        self.make().exchanges.assign_add(1)

    def _end_period(self, index: int) -> int:
        self.in_each(lambda: self._average(index))
        self.make().end_period(index)
        return 0

    def in_each(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in each replica, with its own part of the arguments; what the replicas return."""
        function = tf.autograph.experimental.do_not_convert(function)
        return self.strategy.extended.call_for_each_replica(function, arguments)

    # Eagerly, on every worker.

    def average(self) -> None:
        """Average at once what has made steps since it was averaged; call it on every worker."""
        self.state.restore_pending()
        if not self.is_pending:
            return
        counters = self.make()
        with stopping_at_difference([self]):
            self.overlap.end()
            pending = tuple(index for index, steps in enumerate(counters.steps.numpy()) if steps)
            if pending:
                self.compiled(pending, lambda: [self._end_period(index) for index in pending])()
        counters.position.assign(0)
        self.overlap.forget()

    @property
    def keeps_replicas_apart(self) -> bool:
        """Whether replicas have state of their own, which one replica's file doesn't hold."""
        return self.keeps_rule_state_apart or bool(self.owed)

    @property
    def keeps_rule_state_apart(self) -> bool:
        """Whether that is momentum and the like."""
        several = self.strategy.num_replicas_in_sync > 1 and self.options.inner_state == "keep"
        return several and self.counters is not None and bool(rule_state_of(self.optimizer))

    @property
    def owed(self) -> list[tuple[Any, bool]]:
        """What each replica keeps of compression; whether it adds up over replicas, by variable."""
        return [one for fragment in self.fragments for one in fragment.owed]

    def gathered_rule_state(self) -> list[np.ndarray]:
        """Every replica's variables of the update rule, each [replicas, ...]; call it on every worker."""
        return self.gathered("rule state", [variable.value for variable in rule_state_of(self.optimizer)])

    def gathered(self, name: str, variables: list[Any]) -> list[np.ndarray]:
        """Every replica's variables, each [replicas, ...]; call it on every worker.

        Args:
            name: of these, which stay the same.
            variables: TensorFlow's.
        """
        if not variables:
            return []

        def in_replica() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            index = tf.reshape(tf.cast(context.replica_id_in_sync_group, tf.int32), [1])
            values = [tf.identity(variable)[tf.newaxis] for variable in variables]
            return [context.all_gather(value, axis=0) for value in [index, *values]]

        gathered = self.compiled(name, lambda: self.in_each(in_replica))()
        order, *values = [np.asarray(self.strategy.experimental_local_results(value)[0]) for value in gathered]
        return [value[np.argsort(order)] for value in values]

    def forget_steps(self) -> None:
        """Begin a new period with the weights as they are, because others were loaded."""
        if self.counters is None:
            return
        self.overlap.forget()
        self.counters.position.assign(0)
        self.counters.steps.assign(tf.zeros_like(self.counters.steps))
        for copy in self.strategy.experimental_local_results(self.counters.rows):
            copy.assign(tf.zeros_like(copy))

    def compiled(self, key: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function of this key, traced in the strategy's scope for such arguments when it is first asked for."""
        with self.strategy.scope():
            if key not in self._compiled:
                traced = tf.function(tf.autograph.experimental.do_not_convert(function))
                self._compiled[key] = traced.get_concrete_function(*arguments)
            return self._compiled[key]


@contextlib.contextmanager
def stopping_at_difference(averagings: list[LocalAveraging]) -> Iterator[None]:
    """While these average: an error that names what differs on the replicas, after which they have nothing to average.

    Raises:
        WorkersDisagreeError: replicas differed after an averaging inside.
    """
    try:
        with explained_difference():
            yield
    except WorkersDisagreeError:
        for averaging in averagings:
            averaging.forget_steps()  # or the strategy's averagings would fail for this model again, whoever trains
        raise
