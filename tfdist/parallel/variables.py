"""Makes variables on a mesh, each where its layout says, from the values that one device would give them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
from tensorflow.experimental import dtensor

from tfdist._compat.keras_variable_creation import current_creation
from tfdist._compat.tensorflow_dtensor_variables import MeshVariable
from tfdist.layouts.placement import Placement, Placements
from tfdist.parallel.initial_values import InitialValue
from tfdist.parallel.transfer import from_parts, layout_of, to_host, to_mesh

_local = threading.local()


@contextlib.contextmanager
def slots_of(parameter: Any) -> Iterator[None]:
    """In here zeros of the shape of a parameter are made as its slots are, by the part."""
    outer = getattr(_local, "parameter", None)
    _local.parameter = getattr(parameter, "value", parameter)
    try:
        yield
    finally:
        _local.parameter = outer


class VariableMaker:
    """Makes the variables of one strategy.

    Args:
        mesh: DTensor's.
        placements: where each variable goes.
    """

    def __init__(self, mesh: dtensor.Mesh, placements: Placements) -> None:
        self._mesh, self._placements = mesh, placements

    def make(self, initial_value: Any, like: Any, options: dict[str, Any]) -> MeshVariable:
        """A variable on the mesh.

        Args:
            initial_value: what TensorFlow was given, a value or a function that makes it.
            like: the parameter that an optimizer makes a slot for; None for other variables.
            options: of `tf.Variable`.
        """
        creation = current_creation()
        initializer, variable = (None, None) if creation is None else (creation.initializer, creation.variable)
        if creation is None and getattr(_local, "parameter", None) is not None:
            like, initializer, variable = _local.parameter, keras.initializers.Zeros(), _local.parameter
        value = InitialValue(initial_value, initializer, variable, options.get("dtype"))
        path = options.get("name") or "Variable" if creation is None else creation.variable.path
        # Counts and the states of random numbers are needed whole; rules are not for an optimizer's own variables,
        # which Adafactor gives the names of parameters.
        placement = Placement((None,) * len(value.shape), (None,) * len(value.shape))
        if value.dtype.is_floating and (_is_slot(like, value.shape) or creation is None or not creation.by_optimizer):
            placement = self._placement(path, value.shape, like, bool(options.get("trainable", True)))
        kept = layout_of(self._mesh, placement.kept)
        return MeshVariable(
            from_parts(value.parts, kept, value.shape),
            used=layout_of(self._mesh, placement.used),
            slot_of=like if _is_slot(like, value.shape) else None,
            to_mesh=to_mesh,
            to_host=to_host,
            **{**options, "dtype": value.dtype},
        )

    def _placement(self, path: str, shape: list[int], like: Any, is_parameter: bool) -> Placement:
        if _is_slot(like, shape):
            return self._placements.of_slot(spec_of(like.layout), shape)
        return self._placements.of_variable(path, shape, is_parameter=is_parameter)


def _is_slot(like: Any, shape: list[int]) -> bool:
    return isinstance(like, MeshVariable) and like.shape.as_list() == shape


def spec_of(layout: dtensor.Layout) -> tuple[str | None, ...]:
    """The axis of each dimension of a layout, or None."""
    return tuple(None if axis == dtensor.UNSHARDED else axis for axis in layout.sharding_specs)
