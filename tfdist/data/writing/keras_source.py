"""The data sets of `keras.datasets`, as columns."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from tfdist.cluster.suggest import nearest_of

PREFIX = "keras:"
SPLITS = ("train", "test")
_IMAGES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
_TOKENS = ("imdb", "reuters")
_NUMBERS = ("boston_housing", "california_housing")
NAMES = (*_IMAGES, *_TOKENS, *_NUMBERS)


def keras_columns(name: str, split: str) -> dict[str, np.ndarray]:
    """Returns a data set's columns: `image`, `tokens` or `features`, and `label`.

    It is downloaded when it's first used, as Keras does that.

    Args:
        name: One of `NAMES`.
        split: "train" or "test".

    Raises:
        ValueError: If there is no such data set or split.
    """
    if name not in NAMES:
        near = nearest_of(name, NAMES)
        hint = f"Did you mean {PREFIX}{near}?" if near else "Choose one of them."
        raise ValueError(f"Data sets of Keras are {', '.join(NAMES)}. Received: source='{PREFIX}{name}'. {hint}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}. Received: split={split!r}. Choose one of them.")
    return columns_of(name, importlib.import_module(f"keras.datasets.{name}").load_data()[SPLITS.index(split)])


def columns_of(name: str, arrays: tuple[Any, Any]) -> dict[str, np.ndarray]:
    """Returns the columns of what `load_data` gives for one split."""
    values, labels = map(np.asarray, arrays)
    if name in _IMAGES:
        values = values if values.ndim == 4 else values[..., np.newaxis]
        return {"image": values, "label": labels.reshape(len(labels)).astype(np.int64)}
    return {"tokens" if name in _TOKENS else "features": values, "label": labels}
