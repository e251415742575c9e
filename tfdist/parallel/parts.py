"""Parts of variables, for files: those that this process writes, and values that are made of parts that it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist._compat.tensorflow_dtensor import wait_for_devices
from tfdist._compat.tensorflow_dtensor_variables import MeshVariable, as_kept
from tfdist.parallel.transfer import Part, from_parts, parts_of


class MeshParts:
    """What a checkpoint asks of variables on a mesh, see checkpoint/shards.py."""

    def of(self, variable: Any) -> MeshVariable | None:
        """A variable on the mesh, or the one behind Keras'; None for what is none."""
        value = variable if isinstance(variable, MeshVariable) else getattr(variable, "value", None)
        return value if isinstance(value, MeshVariable) else None

    def written_here(self, variable: MeshVariable) -> list[tuple[Part, tf.Tensor]]:
        """The parts that this process writes: over all processes each is written once, by the first device that has it.

        The tensors are what the variable holds now: TensorFlow copies when it changes a variable that somebody reads.
        """
        layout = variable.layout
        others = [axis for axis in layout.mesh.dim_names if axis not in layout.sharding_specs]
        with as_kept():
            value = variable.read_value()
        wait_for_devices()
        components = dtensor.unpack(value)
        found = []
        with tf.device("CPU:0"):
            places = zip(
                layout.mesh.local_device_locations(), parts_of(layout, variable.shape), components, strict=True
            )
            for place, part, component in places:
                if not any(place[axis] for axis in others):
                    found.append((part, tf.identity(component)))
        return found

    def value(self, variable: MeshVariable, read: Callable[[list[Part]], list[Any]]) -> tf.Tensor:
        """A value in the variable's layout.

        Args:
            variable: it is for.
            read: gives parts of it, as arrays or tensors of the host.
        """

        def make(parts: list[Part]) -> list[Any]:
            return [tf.cast(value, variable.dtype) for value in read(parts)]

        return from_parts(make, variable.layout, variable.shape)
