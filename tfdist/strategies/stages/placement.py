"""A model whose stages are on their devices: its variables moved there, and its layers run there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from tfdist._compat.keras_staged_models import (
    calls_of,
    input_ids,
    losses_of,
    mask_of,
    output_ids,
    regularize_by,
    run_by,
    set_mask,
)
from tfdist._compat.keras_variable_devices import device_of, devices_of, move, stored
from tfdist.log import logger
from tfdist.strategies.stages.grid import Grid
from tfdist.strategies.stages.plan import Stage, cut, size_bytes
from tfdist.strategies.stages.schedule import Timetable
from tfdist.strategies.stages.unit import run_unit


class Placement:
    """Where the parts of one model are.

    Args:
        model: a built Sequential or functional model.
        graph: what runs its layers.
        strategy: in whose scope it was made.
        grid: the devices.
        boundaries: names of layers, None to balance bytes.
        timetable: gives the one of the batch that is traced; None where units run as data comes.
    """

    def __init__(
        self,
        model: Any,
        graph: Any,
        strategy: Any,
        grid: Grid,
        boundaries: Sequence[str] | None,
        timetable: Callable[[], Timetable | None],
    ) -> None:
        self.stages = cut(calls_of(graph), input_ids(graph), output_ids(graph), grid.stages, boundaries)
        self._strategy, self._grid, self._timetable = strategy, grid, timetable
        self._graph = weakref.ref(graph)
        self._place_weights(model)
        run_by(graph, self._run)
        regularize_by(model, self._regularize)

    def is_of(self, graph: Any) -> bool:
        """Whether the model is still the one that was placed; a Sequential model may have got another layer."""
        return self._graph() is graph

    def place_rest(self, model: Any) -> None:
        """Metrics go where the outputs are; whole numbers, such as counts and seeds, stay on the host."""
        self._move(model.metrics_variables, self._grid.devices(self._grid.stages - 1))

    def _place_weights(self, model: Any) -> None:
        moving = any(
            devices_of(one) != self._grid.devices(stage.index)
            for stage in self.stages
            for one in stage.own_variables
            if _can_move(one)
        )
        optimizer = model.optimizer
        if moving and optimizer is not None and optimizer.built:
            raise ValueError(
                "An optimizer's variables are beside the model's, so the model must be on its devices first. Expected: "
                f"an optimizer that is not built. Received: optimizer={optimizer.name!r}, built before model "
                f"{model.name!r} had all its layers. Build the model, then compile it, in the strategy's scope."
            )
        for stage in self.stages:
            self._move(stage.own_variables, self._grid.devices(stage.index))
        sizes = [
            f"{size_bytes(stage.own_variables):,} on {' and '.join(self._grid.devices(stage.index))}"
            for stage in self.stages
        ]
        logger.info("pipeline: bytes of parameters of model %r: %s", model.name, ", ".join(sizes))

    def _move(self, variables: Sequence[Any], devices: Sequence[str]) -> None:
        for variable in variables:
            if _can_move(variable):
                move(variable, self._strategy, devices)

    def _regularize(self, variable: Any) -> Any:
        """A variable's regularization loss, where the variable is."""
        return run_unit(
            lambda _: variable.regularizer(variable),
            [],
            variables=[stored(variable)],
            stage=0,
            device=device_of(variable),
            timetable=None,
        )

    def _run(self, values: dict[int, Any], wrap: Callable[[Any], Any]) -> dict[int, Any]:
        for stage in self.stages:
            results = self._run_stage(stage, [_with_mask(values[one]) for one in stage.needed], wrap)
            for one, (value, mask) in zip(stage.handed, results, strict=True):
                set_mask(value, mask)
                values[one] = value
        return values

    def _run_stage(self, stage: Stage, inputs: list[Any], wrap: Callable[[Any], Any]) -> list[Any]:
        timetable = self._timetable()
        layers = list({id(one): one for call in stage.calls for one in call.layers}.values())
        before = losses_of(layers)

        def compute(inputs: list[Any]) -> Any:
            local = {}
            for one, (value, mask) in zip(stage.needed, inputs, strict=True):
                set_mask(value, mask)
                local[one] = value
            for call in stage.calls:
                call.run(local, wrap)
            losses = [losses[count:] for losses, count in before]
            return [_with_mask(local[one]) for one in stage.handed], losses

        results, losses = run_unit(
            compute,
            inputs,
            variables=[stored(one) for one in stage.variables if one.trainable],
            stage=stage.index,
            device=self._grid.device(stage.index),
            timetable=timetable,
        )
        for (kept, count), new in zip(before, losses, strict=True):
            kept[count:] = new  # as the tapes around the stage know them
        return results


def _can_move(variable: Any) -> bool:
    return bool(stored(variable).dtype.is_floating)


def _with_mask(value: Any) -> tuple[Any, Any]:
    return value, mask_of(value)
