"""How variables are split over a mesh of devices: layouts for common blocks, for `tfdist.HybridParallelStrategy`."""

from tfdist.layouts.automatic import Plan, auto
from tfdist.layouts.devices import logical_cpus
from tfdist.layouts.ready_made import attention, by_width, embedding, mlp, transformer

__all__ = ["Plan", "attention", "auto", "by_width", "embedding", "logical_cpus", "mlp", "transformer"]
