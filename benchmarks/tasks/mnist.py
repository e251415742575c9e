"""MNIST, and how good weights of a perceptron are; NumPy alone, so that all contenders are judged alike."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "TFDIST_DATA_DIR"


def load() -> tuple[Any, Any, Any, Any]:
    """Rows and labels to train on and to test with, numbers from 0 to 1.

    Raises:
        FileNotFoundError: mnist.npz is not there.
    """
    import numpy as np

    path = Path(os.environ.get(VARIABLE, "."), "mnist.npz")
    if not path.exists():
        raise FileNotFoundError(f"Expected: mnist.npz in the folder {VARIABLE}. Received: {path}, which isn't there.")
    with np.load(path) as file:
        x, test_x = (file[name].reshape(-1, 784).astype("float32") / 255 for name in ("x_train", "x_test"))
        return x, file["y_train"].astype("int32"), test_x, file["y_test"].astype("int32")


def accuracy(weights: Sequence[Any], x: Any, y: Any) -> float:
    """Of a perceptron with ReLU.

    Args:
        weights: kernel (inputs, outputs) and bias of each layer.
        x: images.
        y: labels.
    """
    import numpy as np

    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = np.maximum(x, 0) @ kernel + bias
    return float((x.argmax(axis=1) == y).mean())


class Race:
    """Trains until an accuracy is reached; what judging takes doesn't count.

    Args:
        target: accuracy.
        test: images and labels.
        most_parts: parts of the training after which it's given up.
    """

    def __init__(self, target: float, test: tuple[Any, Any], most_parts: int) -> None:
        self._target, self._test, self._left = target, test, most_parts
        self._seconds, self._begun, self._accuracy, self._parts = 0.0, 0.0, 0.0, 0

    def go(self) -> None:
        """Training begins or goes on; the first time behind its first step, since that one traces."""
        self._begun = time.perf_counter()

    def judge(self, weights: Sequence[Any]) -> bool:
        """A part is over; whether there is to be another one."""
        self._seconds += time.perf_counter() - self._begun
        self._accuracy = accuracy(weights, *self._test)
        self._parts += 1
        return self._accuracy < self._target and self._parts < self._left

    def result(self) -> dict[str, Any]:
        """Seconds to the target, None if it wasn't reached; seconds of a part; the last accuracy; parts."""
        reached = self._accuracy >= self._target
        return {
            "seconds": self._seconds if reached else None,
            "part": self._seconds / self._parts,
            "accuracy": self._accuracy,
            "parts": float(self._parts),
        }
