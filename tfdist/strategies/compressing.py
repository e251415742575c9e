"""Gradient compression as a setting of a strategy: every optimizer made in its scope is compressed alike."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import keras

from tfdist._compat.keras_compression import compression_of
from tfdist.gradients.compression import Automatic, Compressor, GradientCompression, NoCompression, compress
from tfdist.log import logger
from tfdist.strategies.measuring import Measuring


class CompressionSetting:
    """Mixin of strategies that take `compression`."""

    _compression: Compressor = NoCompression()

    def _init_compression(self, compression: Compressor | str | None) -> None:
        self._compression = as_compressor(compression)
        # With names by the order in which they were attached, which is the same on every worker.
        self._compressions: weakref.WeakKeyDictionary[GradientCompression, str] = weakref.WeakKeyDictionary()
        self._compression_names = map(str, itertools.count())

    @property
    def compression(self) -> Compressor:
        """How gradients cross the wire."""
        return self._compression

    @property
    def compresses(self) -> bool:
        """Whether gradients are sent otherwise than as they are."""
        return not isinstance(self._compression, NoCompression)

    def compress_optimizer(self, optimizer: Any) -> None:
        """Attach the compression, so that files can be loaded into it."""
        if self.compresses and compression_of(optimizer) is None:
            if self.num_replicas_in_sync == 1:  # type: ignore[attr-defined]
                logger.warning("%s on one replica loses digits and saves nothing", self._compression)
            self._compressions[compress(optimizer, self._compression)] = next(self._compression_names)

    def measuring(self) -> list[keras.callbacks.Callback]:
        """What a `fit` needs where compression is to be chosen."""
        return [Measuring(self)] if isinstance(self._compression, Automatic) else []

    def sent_bytes(self, optimizer: Any) -> int:
        """Bytes that each replica sends in an optimizer step, of dense gradients, as counted when it was traced.

        Raises:
            ValueError: nothing is compressed, or no step was traced yet.
        """
        compression = compression_of(optimizer)
        if compression is None or not compression.traffic:
            raise ValueError(
                "Expected: an optimizer that has made a step under a strategy with compression=. Received: "
                f"optimizer={type(optimizer).__name__}. Call fit first."
            )
        return compression.traffic[compression.in_use].sent(self.num_replicas_in_sync)  # type: ignore[attr-defined]


def as_compressor(value: Any) -> Compressor:
    """What `compression` of a strategy may be.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return NoCompression()
    if value == "auto":
        return Automatic()
    if not isinstance(value, Compressor):
        raise TypeError(
            "Expected: compression as one of tfdist.gradients: NoCompression(), Cast('bfloat16'), PowerSGD(rank=4), "
            f"TopK(0.01), Quantize(bits=8); or as 'auto'. Received: compression={value!r}. Make one of them."
        )
    return value
