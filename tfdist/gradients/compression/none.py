"""Gradients as they are."""

from __future__ import annotations

import dataclasses

from tfdist.gradients.compression.compressor import Compressor, Stage, send_whole


@dataclasses.dataclass(frozen=True)
class NoCompression(Compressor):
    """The default: gradients are sent in their own precision."""

    def takes(self, shape: tuple[int, ...]) -> bool:
        """None."""
        return False

    def stages(self) -> tuple[Stage, ...]:
        """Whole, always."""
        return (Stage(0, send_whole),)
