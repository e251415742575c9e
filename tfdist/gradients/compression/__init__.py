"""Compression of gradients on their way to the other replicas."""

from __future__ import annotations

from tfdist.gradients.compression.automatic import Automatic
from tfdist.gradients.compression.cast import Cast
from tfdist.gradients.compression.compression import GradientCompression, compress
from tfdist.gradients.compression.compressor import Compressor
from tfdist.gradients.compression.exchange import Traffic
from tfdist.gradients.compression.none import NoCompression
from tfdist.gradients.compression.power_sgd import PowerSGD
from tfdist.gradients.compression.quantize import Quantize
from tfdist.gradients.compression.top_k import TopK

__all__ = [
    "Automatic",
    "Cast",
    "Compressor",
    "GradientCompression",
    "NoCompression",
    "PowerSGD",
    "Quantize",
    "TopK",
    "Traffic",
    "compress",
]
