"""tfdist: Keras 3 on TensorFlow, trained on many devices by changing one line, the strategy.

Names are loaded when first used, so that `import tfdist` costs nothing beside TensorFlow itself.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_STRATEGIES = {
    "HybridParallelStrategy": "tfdist.strategies.hybrid_parallel",
    "LocalSGDStrategy": "tfdist.strategies.local_sgd",
    "MirroredStrategy": "tfdist.strategies.mirrored",
    "MultiWorkerMirroredStrategy": "tfdist.strategies.multi_worker_mirrored",
    "OneDeviceStrategy": "tfdist.strategies.one_device",
    "ParameterServerStrategy": "tfdist.strategies.parameter_server",
    "PipelineStages": "tfdist.strategies.pipeline_stages",
}
_MODULES = ("callbacks", "checkpoint", "cluster", "data", "gradients", "launch", "layouts", "updates")

__all__ = [
    "HybridParallelStrategy",
    "LocalSGDStrategy",
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "OneDeviceStrategy",
    "ParameterServerStrategy",
    "PipelineStages",
    "callbacks",
    "checkpoint",
    "cluster",
    "data",
    "gradients",
    "launch",
    "layouts",
    "updates",
]


def __getattr__(name: str) -> Any:
    if name in _STRATEGIES:
        return getattr(importlib.import_module(_STRATEGIES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"tfdist.{name}")
    raise AttributeError(f"module 'tfdist' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
