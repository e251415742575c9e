"""Training described by a YAML file: typed, and unknown keys are errors that name the nearest one.

    model: package.module:build_model
    data: {name: tfdist.data:digits, options: {split: train}}
    strategy: MultiWorkerMirroredStrategy
    loss: {name: sparse_categorical_crossentropy, options: {from_logits: true}}
    epochs: 5

Nothing here imports TensorFlow before `train` is called.
"""

from __future__ import annotations

from tfdist.config.loading import load
from tfdist.config.schema import Launch, Part, TrainConfig
from tfdist.config.training import train
from tfdist.errors import ConfigError

__all__ = ["ConfigError", "Launch", "Part", "TrainConfig", "load", "train"]
