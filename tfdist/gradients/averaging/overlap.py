"""Averaging while training goes on: what crosses the wire is hidden behind D local steps.

A fragment is due after step k. With x_r the weights of replica r after it and y the anchor, of an outer optimizer:

    after step k        s_r <- x_r, and the exchange of s_r begins on a thread of its own
    steps k+1 .. k+D    local steps change x_r
    after step k+D      x <- the mean of s_r, or the outer optimizer's step from y by the mean of y - s_r
                        x_r <- x + (x_r - s_r)

so that nothing a replica learns in the meantime is lost. Weights of replicas then differ by those D steps; anchors are
equal. Where replicas are to be equal, at the end of an epoch say, the exchange is waited for and another one follows.

    Zhou et al. 2020, "DaSGD: Squeezing SGD Parallelization Performance in Distributed Training Using Delayed
    Averaging", arXiv:2006.00441
    Douillard et al. 2025, "Streaming DiLoCo with overlapping communication", arXiv:2501.18512, mixes x and x_r instead

Exchanges begin and end between executions, at the first end of one that is not before their step: on all workers after
the same step, however long an exchange takes.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist.gradients.averaging.equality import check_equal
from tfdist.gradients.slots import local_variable


class Overlap:
    """The exchange of one averaging that may be under way.

    Args:
        averaging: a `LocalAveraging`.
    """

    def __init__(self, averaging: Any) -> None:
        self._owner = weakref.ref(averaging)
        self._under_way: _Exchange | None = None
        #: Local steps after the last execution, as `counters.position` counts them.
        self._position = 0
        #: Copies of what is exchanged, by the variable's id, and each replica's rows.
        self._copies: dict[int, tf.Variable] = {}
        self._rows: Any = None

    @property
    def _averaging(self) -> Any:
        return self._owner()

    def end_execution(self) -> None:
        """Between two executions: end the exchange whose time it is, and begin those that are due."""
        averaging = self._averaging
        counters, options = averaging.make(), averaging.options
        position = int(counters.position.numpy())
        due = options.due_between(self._position, position, len(averaging.fragments))
        self._position = position
        if self._under_way is not None and (due or position >= self._under_way.until):
            self.end()
        if due:
            self._begin(due, position + options.overlap_steps)

    def end(self) -> None:
        """Wait for the exchange, if there is one, and go on from it."""
        exchange, self._under_way = self._under_way, None
        if exchange is None:
            return
        averaging, counters = self._averaging, self._averaging.make()
        means = exchange.result()
        # Or rounding would make replicas differ that have learned nothing since.
        has_gone_on = bool(counters.steps.numpy()[exchange.fragments[0]] > exchange.steps[0])

        def go_on(means: Any) -> None:
            for place, index in enumerate(exchange.fragments):
                averaging.in_each(lambda *mine, i=index: self._go_on(i, *mine, has_gone_on=has_gone_on), *means[place])

        averaging.compiled(("go on", exchange.fragments, has_gone_on), go_on, means)(means)
        for index, steps in zip(exchange.fragments, exchange.steps, strict=True):
            counters.end_period(index, steps)

    def forget(self) -> None:
        """Other weights were loaded, or all were averaged: steps count from here."""
        exchange, self._under_way, self._position = self._under_way, None, 0
        if exchange is not None:
            exchange.result()

    def _begin(self, fragments: tuple[int, ...], until: int) -> None:
        averaging = self._averaging
        self._make_copies(fragments)
        begin = averaging.compiled(
            ("begin", fragments), lambda: [averaging.in_each(lambda i=i: self._copy(i)) for i in fragments]
        )
        # Traced here, run there.
        exchange = averaging.compiled(
            ("exchange", fragments), lambda: [averaging.in_each(lambda i=i: self._mean(i)) for i in fragments]
        )
        steps = averaging.make().steps.numpy()
        begin()
        self._under_way = _Exchange(fragments, tuple(int(steps[index]) for index in fragments), until, exchange)

    def _make_copies(self, fragments: tuple[int, ...]) -> None:
        averaging = self._averaging
        with averaging.strategy.scope():
            if self._rows is None:
                rows = averaging.make().rows
                self._rows = local_variable(tf.zeros(rows.shape, rows.dtype), "rows_of_exchange")
            for variable in (one for index in fragments for one in self._variables(index)):
                if id(variable) not in self._copies:
                    value = tf.zeros(variable.shape, variable.dtype)
                    self._copies[id(variable)] = local_variable(value, "copy_for_exchange")

    def _variables(self, index: int) -> list[Any]:
        averaging = self._averaging
        return [*averaging.fragments[index].variables, *averaging.companions(index)]

    # In each replica.

    def _copy(self, index: int) -> None:
        counters = self._averaging.make()
        for variable in self._variables(index):
            self._copies[id(variable)].assign(variable.value)
        rows = counters.rows.read_value()
        self._rows.assign(tf.where(tf.range(tf.size(rows)) == index, rows, self._rows.read_value()))
        counters.forget_rows(index)

    def _mean(self, index: int) -> tuple[list[tf.Tensor], tf.Tensor]:
        averaging = self._averaging
        found = averaging.mean(index, self._copied(index), self._rows.read_value()[index])
        outer = averaging.fragments[index].outer
        if averaging.options.verify_equal and outer is not None:
            check_equal([*outer.anchors, *outer.state])
        return found

    def _go_on(self, index: int, means: list[tf.Tensor], has_rows: tf.Tensor, *, has_gone_on: bool) -> None:
        averaging = self._averaging
        since = self._copied(index) if has_gone_on else None
        averaging.fragments[index].go_on(averaging.companions(index), means, has_rows, since)

    def _copied(self, index: int) -> list[tf.Tensor]:
        return [self._copies[id(variable)].read_value() for variable in self._variables(index)]


@dataclasses.dataclass(eq=False)
class _Exchange:
    """A function that runs on a thread of its own, from when this is made.

    Args:
        fragments: what is averaged.
        steps: local steps of each of them that it is averaged over.
        until: the local step after which training goes on from the result.
        function: to be run.
    """

    fragments: tuple[int, ...]
    steps: tuple[int, ...]
    until: int
    function: Callable[[], Any]

    def __post_init__(self) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        # A daemon: a process that has failed must not wait for others to end it.
        self._thread = threading.Thread(target=self._run, name="tfdist-averaging", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self.function()
        except BaseException as error:  # raised where it is waited for
            self._error = error

    def result(self) -> Any:
        """What the function returned, when it has.

        Raises:
            Exception: what it raised.
        """
        self._thread.join()
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error  # its traceback holds this frame, which would keep the model alive
