"""In which layouts Keras' layers compute on a mesh, found out by trying each one (docs/hybrid_parallel_layers.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Treatment:
    """What a layer needs.

    Args:
        inputs: "any" layout that DTensor likes; "rows", split by rows of the batch alone; or "whole" on every device.
        whole_weights: whether weights are gathered where they are split.
        weights_as_kept: whether weights are never gathered, also with zero_stage=3.
        unrolled: whether a recurrent layer's loop over time steps is written out.
        reason: why the layer can't compute at all; empty where it can.
    """

    inputs: str = "any"
    whole_weights: bool = False
    weights_as_kept: bool = False
    unrolled: bool = False
    reason: str = ""

    def refuse(self, layer: Any) -> None:
        """Raises ValueError where the layer can't compute."""
        if self.reason:
            raise ValueError(
                f"HybridParallelStrategy can't train a model with {type(layer).__name__}: {self.reason} "
                f"Received: layer {layer.name!r}."
            )


_AS_IT_IS = Treatment()
_BY_ROWS = Treatment(inputs="rows", whole_weights=True)
_WHOLE = Treatment(inputs="whole", whole_weights=True)

_TREATMENTS: dict[str, Treatment] = {
    # Filters must be whole, and channels that are split can't be pooled.
    **dict.fromkeys(["BaseConv", "BaseConvTranspose", "BasePooling", "BaseAdaptivePooling"], _BY_ROWS),
    # They repeat heads of keys, or cut time steps out, of which DTensor would have to move parts.
    **dict.fromkeys(["GroupedQueryAttention", "TimeDistributed"], _BY_ROWS),
    # A loop would crash DTensor.
    "RNN": Treatment(inputs="rows", whole_weights=True, unrolled=True),
    # They fail or hang while they run, and take the next step along.
    "RandomCrop": Treatment(reason="DTensor would crop parts of pictures. Crop in the data set, with dataset.map()."),
    "RandomElasticTransform": Treatment(
        reason="DTensor would wait for itself. Transform in the data set, with dataset.map()."
    ),
    # Keras takes the gradients of rows one by one, which a table that was gathered would add up before.
    "Embedding": Treatment(inputs="rows", weights_as_kept=True),
}


def treatment_of(layer: Any) -> Treatment:
    """By the layer's class, or the nearest one that it's derived from."""
    return next((_TREATMENTS[one.__name__] for one in type(layer).__mro__ if one.__name__ in _TREATMENTS), _AS_IT_IS)
