"""PipelineStages: a model cut between its layers, a device for each part, and the batch in micro-batches.

The way of one batch:

    iterator (on the host) -> each pipeline's rows -> micro-batches (data/rows.py) -> Keras' train step on each of them,
    one after the other in the graph: stage by stage on their devices (stages/unit.py), the loss where the outputs are,
    back through the stages -> gradients weighted and added up beside their variables (gradients/accumulation.py)
    -> summed over the pipelines, once a step -> one update, of each copy of a variable on its own device

Nothing but data and the schedule (stages/schedule.py) orders the micro-batches, so stages work at the same time. To
tf.distribute a pipeline is a replica, which has several devices.
"""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_optimizers import build_if_needed
from tfdist._compat.keras_staged_models import graph_of
from tfdist._compat.keras_variable_devices import devices_of
from tfdist._compat.tensorflow_staged_devices import StagedExtended
from tfdist._compat.tensorflow_staged_replicas import StagedReplicasExtended
from tfdist.gradients import AccumulationOptions, Steps
from tfdist.strategies.logs import Values
from tfdist.strategies.micro_batches import MicroBatch, mean_of_micro_batches
from tfdist.strategies.stages.clock import Clock, NoClock
from tfdist.strategies.stages.grid import Grid
from tfdist.strategies.stages.placement import Placement
from tfdist.strategies.stages.plan import Stage
from tfdist.strategies.stages.schedule import SCHEDULES, Schedule, Timetable
from tfdist.strategies.stages.summary import summary
from tfdist.strategies.stages.timeline import Timeline
from tfdist.strategies.synchronous import SynchronousStrategy


class PipelineStages(SynchronousStrategy, tf.distribute.Strategy):
    """Training of one model that is cut into stages, in one process, exact under Keras 3.

    Parameters, optimizer slots, accumulated gradients and activations of a stage are on its device only, and a batch
    goes through the stages as several micro-batches, so that all devices compute at the same time. Several pipelines
    side by side each take a share of the rows. The update is that of the whole batch on one device.

    Args:
        devices: a device for each stage, first to last, such as `["GPU:0", "GPU:1"]`; or a list of such lists, one for
            each of several pipelines side by side, which share the rows of a batch and have the same variables.
        micro_batches: pieces of a batch, M, in each pipeline of its share of the rows: of even size, the last rows'
            included. With S stages a stage stands still for (S - 1) / (M + S - 1) of the time; 4 S make that little.
        boundaries: names of the layers that begin the stages after the first; None balances bytes of parameters.
        schedule: "1f1b" holds the activations of at most S micro-batches, "gpipe" those of all M.
        gradient_accumulation_steps: batches to an optimizer step, a function of optimizer steps that gives them, or
            `tfdist.gradients.AccumulationOptions`.
        record_times: look at the clock when a stage begins and ends a micro-batch, for `timeline()`.

    Raises:
        TypeError, ValueError: an option is wrong; when a model is compiled, if it can't be cut like this.

    Example:

        strategy = tfdist.PipelineStages(["GPU:0", "GPU:1"], micro_batches=8)
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        print(strategy.summary(model, batch_size=256))
        model.fit(dataset, epochs=10)
    """

    def __init__(
        self,
        devices: Sequence[str] | Sequence[Sequence[str]],
        *,
        micro_batches: int,
        boundaries: Sequence[str] | None = None,
        schedule: Literal["1f1b", "gpipe"] = "1f1b",
        gradient_accumulation_steps: Steps | AccumulationOptions = 1,
        record_times: bool = False,
    ) -> None:
        if isinstance(micro_batches, bool) or not isinstance(micro_batches, numbers.Integral) or micro_batches < 1:
            raise ValueError(f"Expected: micro_batches as an int of at least 1. Received: {micro_batches!r}.")
        if schedule not in SCHEDULES:
            raise ValueError(f"Expected: schedule to be one of {sorted(SCHEDULES)}. Received: schedule={schedule!r}.")
        self.micro_batches: int = int(micro_batches)
        self._schedule: Schedule = SCHEDULES[schedule]
        if isinstance(boundaries, str):
            raise TypeError(f"Expected: boundaries as a list of layers' names. Received: boundaries={boundaries!r}.")
        self._boundaries: list[str] | None = None if boundaries is None else list(boundaries)
        self._grid: Grid = Grid(devices)
        self._timetable: Timetable | None = None
        self._placements: weakref.WeakKeyDictionary[Any, Placement] = weakref.WeakKeyDictionary()
        grid = self._grid
        self._clock: NoClock = Clock(grid.pipelines, grid.stages, self.micro_batches) if record_times else NoClock()
        if grid.pipelines == 1:
            extended: Any = StagedExtended(self, grid.host, grid.place)
        else:
            extended = StagedReplicasExtended(self, grid.host, grid.devices(0), grid.place)
        super().__init__(extended, gradient_accumulation_steps=gradient_accumulation_steps)

    def _in_this_job(self, options: AccumulationOptions) -> AccumulationOptions:
        return dataclasses.replace(options, splits=options.splits * self.micro_batches)

    @property
    def beyond_xla(self) -> str:
        """See `SynchronousStrategy`."""
        return "steps on several devices"

    def timeline(self) -> Timeline:
        """When each stage was at work in the last training step; `str` of it is a chart. Needs `record_times=True`.

        Raises:
            ValueError: there is nothing to show.
        """
        found = self._clock.timeline()
        if found is None:
            raise ValueError(
                "Expected: PipelineStages(..., record_times=True) and a training step of several micro-batches before. "
                f"Received: micro_batches={self.micro_batches}, and no times. Call fit() or train_on_batch() first."
            )
        return found

    def stages_of(self, model: Any) -> list[Stage]:
        """A model's stages, which is placed on its devices if it isn't yet.

        Raises:
            ValueError: it was made elsewhere, or has no variables yet.
        """
        if hooks.model_strategy(model) is not self:
            raise ValueError(
                "Expected: a model that was made under `with strategy.scope():` of this PipelineStages. Received: "
                f"model {model.name!r}, which was not. Make it, and its optimizer, in there."
            )
        placement = self._placement_of(model)
        if placement is None:
            raise ValueError(
                f"Expected: a model that has its variables. Received: model {model.name!r}, which is not built. Give "
                "it an Input, or call model.build(input_shape)."
            )
        return placement.stages

    def summary(self, model: Any, batch_size: int | None = None) -> str:
        """A table of the stages: device, layers, and the bytes that each device holds at most during training.

        Slots are the optimizer's variables and what adds up gradients. Activations are the layers' outputs, of as many
        micro-batches as are in flight; what a layer keeps inside beside them, such as attention's scores, isn't known.

        Args:
            model: built; its optimizer is built too.
            batch_size: rows of a batch; None counts activations of one row in each micro-batch.
        """
        stages = self.stages_of(model)
        if model.optimizer is not None:
            with self.scope():
                build_if_needed(model.optimizer, model.trainable_variables)
        accumulates = model.optimizer is not None and self.accumulates(model.optimizer)
        return summary(
            stages,
            model,
            self._grid,
            self._schedule.order,
            micro_batches=self.micro_batches,
            accumulates=accumulates,
            batch_size=batch_size,
        )

    def _placement_of(self, model: Any) -> Placement | None:
        graph = graph_of(model)
        if graph is None or not model.built:
            return None
        placement = self._placements.get(model)
        if placement is None or not placement.is_of(graph):
            placement = Placement(model, graph, self, self._grid, self._boundaries, lambda: self._timetable)
            self._placements[model] = placement
        return placement

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """As all synchronous strategies'; parts of a batch stay on the host, where stages take what they need."""
        return dataset if self._grid.pipelines == 1 else super().experimental_distribute_dataset(dataset, options)

    def each_micro_batch(
        self, step: Callable[[MicroBatch], tuple[Values, tf.Tensor]], count: int
    ) -> tuple[Values, tf.Tensor]:
        """As `micro_batches.each_micro_batch`; all in one graph, so that stages can work at the same time."""
        with self._timed(count) as timetable:
            results = []
            for index in range(count):
                timetable.micro_batch = index
                results.append(step(MicroBatch(index, count, self._grid.host)))
            timetable.keep()
        return mean_of_micro_batches(results)

    @contextlib.contextmanager
    def _timed(self, count: int) -> Iterator[Timetable]:
        self._timetable = Timetable(self._schedule, self._grid.stages, self._grid.pipelines, count, self._clock)
        try:
            yield self._timetable
        finally:
            self._timetable = None

    # What Keras asks for, see _compat/hooks.py.

    def place_model(self, model: Any) -> None:
        """Move what the model has to its devices, before its optimizer makes variables beside it."""
        self._placement_of(model)

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """As all synchronous strategies'; the model is on its devices first."""
        self.stages_of(model)
        self._placements[model].place_rest(model)
        return super().keras_function(model, kind)

    def beside(self, variable: Any) -> contextlib.AbstractContextManager[Any]:
        """Variables that are made in here are on a variable's devices."""
        return self.extended.making_on(devices_of(variable))
