"""The policy of a ParameterServerStrategy: what it asks of executions, and what is counted of their pushes.

Nothing else in the strategy asks of what kind its policy is.

order of events
    note_batches, refuse         a `fit` is about to begin
    begin_epoch
    pushes_of, local_training    a worker's function is traced, where there is none yet for such data
    number_of                    an execution begins
    landed, with_staleness       its report has come
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat.keras_optimizers import leaves_of, step_count_of
from tfdist.coordination.feeding import FedData, Feed
from tfdist.coordination.flights import Flights
from tfdist.coordination.local_training import LocalTraining
from tfdist.coordination.part_sizes import PartSizes
from tfdist.coordination.pushes import Pushes, Versions
from tfdist.coordination.rounds import Rounds
from tfdist.coordination.staleness import Staleness
from tfdist.coordination.worker_data import WorkerData, WorkerPass
from tfdist.gradients import AccumulationOptions, count_rows
from tfdist.strategies.logs import Logs
from tfdist.strategies.policy_checks import (
    refuse_accumulated_compensation,
    refuse_averages_and_accumulation,
    refuse_one_batch,
    refuse_steps_without_round,
)
from tfdist.updates import LocalPolicy, Policy


class PolicyInUse:
    """Of one strategy.

    Args:
        strategy: ParameterServerStrategy.
        update: The policy.
        flights: Of the strategy; executions wait there for what the policy says.
        logs_staleness: Whether the logs of `fit` have the staleness of pushes.
    """

    def __init__(self, strategy: Any, update: Policy, flights: Flights, *, logs_staleness: bool) -> None:
        self.update, self._logs_staleness = update, logs_staleness
        #: The same, where workers train parameters of their own.
        self._local = update if isinstance(update, LocalPolicy) else None
        self._versions = Versions(strategy)
        #: Of the pushes of the epoch.
        self.staleness = Staleness()
        #: Of the last `fit`, noted where the policy counts records.
        self._batch_rows = 1
        self._sizes = PartSizes()
        flights.waits_at = update.waits_at
        needed = update.gradients_per_step(len(flights.cluster.addresses("worker")))
        #: Optimizer steps of several workers' gradients, where the policy makes them.
        self._rounds: Rounds | None = None
        if needed is not None:
            self._rounds = Rounds(strategy, flights.cluster, needed, self._count_steps)
            flights.rounds_gate = self._rounds.gate
            flights.on_round_end, flights.on_forget = self._rounds.end, self._rounds.forget

    def note_batches(self, batch_size: int | None, data: WorkerData | FedData) -> None:
        """Note how many rows batches of the next `fit` have, if the policy asks for it; read if nobody knows."""
        if self._local is not None and self._local.counts_records:
            self._batch_rows = batch_size or _rows_of_batch(data)

    def refuse(self, model: Any, options: AccumulationOptions) -> None:
        """Refuse a `fit` of what the policy can't be combined with.

        Args:
            model: A compiled Keras model.
            options: How its optimizer accumulates.

        Raises:
            ValueError: it can't.
        """
        refuse_accumulated_compensation(self.update, options)
        if self._local is not None:
            refuse_averages_and_accumulation(self._local, model, options)
        elif self._rounds is not None:
            refuse_steps_without_round(self.update, int(model.steps_per_execution))

    def refuse_one_batch(self) -> None:
        """Refuse `train_on_batch`.

        Raises:
            ValueError: workers train on several by themselves.
        """
        if self._local is not None:
            refuse_one_batch(self._local)

    @property
    def steps_together(self) -> int:
        """Train steps that an execution doesn't part, with the data of the last `fit`."""
        return 1 if self._local is None else self._local.steps_together(self._batch_rows)

    def begin_epoch(self, data: Feed | WorkerPass) -> None:
        """Count its pushes from 0.

        Executions get as many steps as their workers are fast, if the policy asks for it and the data can.
        """
        self.staleness = Staleness()
        if self._local is not None and self._local.follows_speed and isinstance(data, WorkerPass):
            data.follow(self._sizes, self.steps_together)

    def pushes_of(self, model: Any, name: str) -> Pushes | None:
        """What takes the gradients of a function that trains a model; None without an optimizer.

        Args:
            model: A compiled Keras model.
            name: Of variables on the worker, and of where gradients wait; the same for all functions of a step.
        """
        if model.optimizer is None:
            return None
        box = None if self._rounds is None else f"{name}/box"
        return Pushes(self.update, self._versions, model.optimizer, name, box=box)

    def local_training(self, pushes: Pushes | None, variables: list[Any], name: str) -> LocalTraining | None:
        """What trains a worker's own parameters; None if the policy has none, or without an optimizer."""
        if self._local is None or pushes is None:
            return None
        return LocalTraining(self._local, pushes, pushes.optimizer, variables, name)

    def number_of(self, pushes: Pushes | None, fit: int) -> int:
        """Of an execution that begins: its own where several make an optimizer step, otherwise that of the `fit`."""
        return fit if self._rounds is None or pushes is None else self._rounds.begin(pushes)

    def landed(self, pushes: Pushes, number: int, steps: int, report: np.ndarray) -> None:
        """Take note of an execution.

        Args:
            pushes: Of its function.
            number: Its `number_of`.
            steps: That it made.
            report: What `Pushes.report` gave.
        """
        if self._rounds is None:
            self._count_steps(pushes.optimizer, steps)
        else:
            late = self._rounds.landed(number, steps)
            if steps:
                self.staleness.add_late(late)
        self.staleness.add(report)

    def _count_steps(self, optimizer: Any, steps: int) -> None:
        """Add what workers have made with parameters of their own to the optimizer's count, which is all workers'."""
        if self._local is not None:
            for leaf in leaves_of(optimizer):
                step_count_of(leaf).assign_add(steps)

    def with_staleness(self, logs: Logs) -> Logs:
        """An execution's logs, with the staleness of the epoch so far if the user chose a policy."""
        if not self._logs_staleness:
            return logs
        return {**logs, **self.staleness.logs(with_dropped=self.update.drops)}


def _rows_of_batch(data: WorkerData | FedData) -> int:
    """Rows of a batch, read if they aren't known from its type."""
    known = getattr(tf.nest.flatten(data.element_spec)[0], "shape", None)
    if known is not None and known.rank and known[0] is not None:
        return int(known[0])
    return int(count_rows(next(iter(data.read_here().take(1)))) or 1)
