"""How a variable is kept and how it is used, from rules and the ZeRO stage.

Glossary:
    kept: the layout between steps. It decides the memory.
    used: the layout in which layers compute with it. Where it differs, a variable is gathered as it is read (FSDP).
    slot: what an optimizer keeps for a parameter, in the parameter's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfdist.layouts.mesh_axes import MeshAxes, Spec
from tfdist.layouts.rules import LayoutRules
from tfdist.log import logger

ZERO_STAGES = (0, 1, 3)


@dataclass(frozen=True)
class Placement:
    """The layouts of one variable."""

    kept: Spec
    used: Spec


class Placements:
    """Decides where each variable goes.

    Args:
        axes: of the mesh.
        rules: the user's.
        zero_stage: 0, 1 for slots split over the batch axis, or 3 for parameters as well (Rajbhandari et al., "ZeRO",
            2020).

    Raises:
        ValueError: there is no such stage.
    """

    def __init__(self, axes: MeshAxes, rules: LayoutRules, zero_stage: int) -> None:
        if zero_stage not in ZERO_STAGES or isinstance(zero_stage, bool):
            raise ValueError(
                f"Expected: zero_stage=0, 1 (slots of the optimizer are split over the batch axis) or 3 (parameters as "
                f"well). Received: zero_stage={zero_stage!r}."
            )
        if zero_stage and axes.num_batch_parts == 1:
            raise ValueError(
                f"ZeRO splits over the axis of the mesh that splits batches. Expected: an axis {axes.batch_axis!r} of "
                f"two devices or more with zero_stage={zero_stage}. Received: mesh={dict(axes.sizes)}."
            )
        self._axes, self._rules, self.zero_stage = axes, rules, zero_stage

    def of_variable(self, path: str, shape: Sequence[int], *, is_parameter: bool) -> Placement:
        """Where a layer's variable goes.

        Args:
            path: Keras' path of it.
            shape: whole.
            is_parameter: whether an optimizer may change it.
        """
        wanted = self._rules.spec_for(path, shape)
        used = self._axes.divisible(wanted, shape)
        if used != wanted:
            logger.warning(
                "%r, shape %s, can't be split as %s: %s. Where an axis doesn't divide a dimension, every device has "
                "all of it; pad the dimension to a multiple to split it.",
                *(path, tuple(shape), wanted, _indivisible(self._axes, wanted, shape)),
            )
        return Placement(self._split(used, shape) if is_parameter and self.zero_stage == 3 else used, used)

    def of_slot(self, parameter: Spec, shape: Sequence[int]) -> Placement:
        """Where a slot goes whose parameter is kept like this."""
        kept = self._split(parameter, shape) if self.zero_stage else parameter
        return Placement(kept, kept)

    def _split(self, spec: Spec, shape: Sequence[int]) -> Spec:
        return self._axes.with_axis(self._axes.batch_axis, spec, shape)


def _indivisible(axes: MeshAxes, spec: Spec, shape: Sequence[int]) -> str:
    places = [(n, name) for n, name in zip(shape, spec, strict=True) if name is not None and n % axes.sizes[name]]
    return ", ".join(f"{size} is no multiple of the {axes.sizes[name]} of axis {name!r}" for size, name in places)
