"""MirroredStrategy: all devices of one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from tfdist.gradients import AccumulationOptions, Compressor, Steps
from tfdist.strategies.synchronous import SynchronousStrategy


class MirroredStrategy(SynchronousStrategy, tf.distribute.MirroredStrategy):
    """Synchronous training on the devices of one machine, exact under Keras 3.

    Args:
        devices: device names such as `["GPU:0", "GPU:1"]`; None for all GPUs, or the CPU where there are none.
        gradient_accumulation_steps: global batches (micro-batches) to an optimizer step, a function of optimizer steps
            that gives them, or `tfdist.gradients.AccumulationOptions`.
        compression: of gradients between devices, such as `tfdist.gradients.PowerSGD(rank=4)`; "auto" to
            choose by measuring the first steps of `fit`; None for none.

    Raises:
        TypeError: `compression` is none of them.

    Example:

        strategy = tfdist.MirroredStrategy()
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(dataset, epochs=10)
    """

    def __init__(
        self,
        devices: Sequence[str] | None = None,
        *,
        gradient_accumulation_steps: Steps | AccumulationOptions = 1,
        compression: Compressor | Literal["auto"] | None = None,
    ) -> None:
        super().__init__(
            devices=list(devices) if devices is not None else None,
            gradient_accumulation_steps=gradient_accumulation_steps,
            compression=compression,
        )
