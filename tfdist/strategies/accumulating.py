"""Gradient accumulation as a setting of a strategy: every optimizer made in its scope accumulates."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from tfdist._compat.keras_optimizers import accumulation_of
from tfdist.gradients import AccumulationOptions, GradientAccumulation, Steps
from tfdist.gradients.doors import attach, combined
from tfdist.gradients.fit_callbacks import fit_callbacks
from tfdist.gradients.reduction import reduction_of
from tfdist.gradients.step import current_share

Update = Callable[[list[Any], list[Any]], None]


class AccumulationSetting:
    """Mixin of strategies that take `gradient_accumulation_steps`."""

    _accumulation = AccumulationOptions()

    @property
    def gradient_accumulation_steps(self) -> Steps:
        """Micro-batches to an optimizer step; assign another number, function or `AccumulationOptions` between fits."""
        return self._accumulation.steps

    @gradient_accumulation_steps.setter
    def gradient_accumulation_steps(self, steps: Steps | AccumulationOptions) -> None:
        self._accumulation = self._in_this_job(AccumulationOptions.of(steps))
        self._accumulation_changed()

    def _in_this_job(self, options: AccumulationOptions) -> AccumulationOptions:
        """What the user asks for, with what the job asks for beside."""
        return options

    def _accumulation_changed(self) -> None:
        """The user has assigned the setting."""

    def options_of(self, optimizer: Any) -> AccumulationOptions:
        """How an optimizer accumulates here; None is no optimizer in particular.

        Raises:
            ValueError: strategy and optimizer ask for different numbers of micro-batches.
        """
        return self._accumulation if optimizer is None else combined(self._accumulation, optimizer)


class AccumulatingStrategy(AccumulationSetting):
    """Mixin of strategies whose replicas accumulate in variables beside the model's."""

    def _init_accumulation(self, steps: Steps | AccumulationOptions) -> None:
        self._accumulation = self._in_this_job(AccumulationOptions.of(steps))
        # With names by the order in which they were attached, which is the same on every worker.
        self._accumulations: weakref.WeakKeyDictionary[GradientAccumulation, str] = weakref.WeakKeyDictionary()
        self._accumulation_names = map(str, itertools.count())

    def _accumulation_changed(self) -> None:
        for accumulation in self._accumulations:
            # An optimizer with a number of its own is asked at its next fit; until then nothing changes for it.
            if not accumulation.has_own_steps:
                accumulation.refresh()

    def options_of(self, optimizer: Any) -> AccumulationOptions:
        """As `AccumulationSetting.options_of`; what the user attached to the optimizer decides."""
        accumulation = None if optimizer is None else accumulation_of(optimizer)
        if accumulation is None or accumulation in self._accumulations:
            return super().options_of(optimizer)
        return accumulation.options

    def accumulates(self, optimizer: Any) -> bool:
        """Whether an optimizer's batches are not all optimizer steps."""
        return accumulation_of(optimizer) is not None or not self.options_of(optimizer).is_trivial

    def begin_traces(self, optimizer: Any) -> None:
        """A train function that accumulates is about to be compiled."""
        if optimizer is not None:
            self.prepare_optimizer(optimizer)
            accumulation_of(optimizer).forget_traces()

    @property
    def pending_accumulations(self) -> list[GradientAccumulation]:
        """Those with micro-batches that wait for an optimizer step."""
        return [one for one in self._accumulations if one.micro_steps]

    # What Keras asks for, see _compat/hooks.py.

    def prepare_optimizer(self, optimizer: Any) -> None:
        """Attach the accumulation, so that files can be loaded into it."""
        if accumulation_of(optimizer) is None and self.accumulates(optimizer):
            accumulation = attach(optimizer, lambda: combined(self._accumulation, optimizer))
            self._accumulations[accumulation] = next(self._accumulation_names)

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """What accumulation does around a `fit`."""
        return fit_callbacks(with_skip_rules=bool(self._accumulation.skip_rules))

    def apply_gradients(self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Update) -> None:
        """Reduce this replica's gradients and update, or add them up for a later update."""
        self.prepare_optimizer(optimizer)
        accumulation = accumulation_of(optimizer)
        if accumulation is not None:
            accumulation.apply_gradients(optimizer, gradients, variables, update)
        else:
            reduction = reduction_of(optimizer)
            reduced = reduction.reduce(gradients, variables, share=current_share())
            update(reduced.gradients, variables)
            reduction.commit(reduced.state)
