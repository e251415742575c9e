"""Random changes to training data by Keras' layers, in the pipeline, the same ones at every run.

Random numbers of a batch are a function of seed, feature, epoch, step and worker, so they don't depend on which thread
makes it or what was read before: a run that goes on in the middle of an epoch draws what it would have drawn.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfdist._compat import keras_seeds

# They mix rows with one another, and would have to mix the labels too.
_MIX_ROWS = ("MixUp", "CutMix")


class Augmentation:
    """Applies layers to features of batches.

    Args:
        layers: Feature name -> layer, or layers one after another.
        names: All features.
        seed: Of the random numbers, in place of the layers' own.
        worker: Which worker this is; each draws its own.

    Raises:
        TypeError: If something isn't a layer.
        ValueError: If there is no such feature, or a layer can't be applied to batches of one feature.
    """

    def __init__(self, layers: Mapping[str, Any] | None, names: Sequence[str], *, seed: int, worker: int) -> None:
        unknown = sorted(set(layers or {}) - set(names))
        if unknown:
            raise ValueError(
                f"augment must name features that are read, {sorted(names)}. Received: augment with {unknown}. "
                "Correct the name."
            )
        self._layers = {name: _checked(name, value) for name, value in (layers or {}).items()}
        self._seed = [seed & 0x7FFFFFFFFFFFFFFF, worker]

    def __call__(self, epoch: tf.Tensor, step: tf.Tensor, features: dict[str, Any]) -> dict[str, Any]:
        """The features with layers applied; in the graph of a data set."""
        return {name: self._applied(name, value, epoch, step) for name, value in features.items()}

    def _applied(self, name: str, value: Any, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        layers = self._layers.get(name, ())
        if not layers:
            return value
        keras_seeds.install()
        seed = tf.constant(self._seed, tf.int64)
        for part in (zlib.crc32(name.encode()), epoch, step):
            seed = tf.random.fold_in(seed, tf.cast(part, tf.int64), alg="philox")
        padded, rows = _with_a_row(value)
        # Twice, since layers may draw more at their first call, when they build themselves.
        for _ in range(2):
            result = padded
            with keras_seeds.drawing_from(seed):
                for layer in layers:
                    result = _apply(name, layer, result)
        return result if rows is None else result[:rows]


def _checked(name: str, value: Any) -> tuple[Any, ...]:
    layers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for layer in layers:
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "augment must give a Keras layer for each feature, or a list of layers, such as "
                f"keras.layers.RandomFlip('horizontal'). Received: augment={{{name!r}: {layer!r}}}. "
                "Use dataset.map for functions."
            )
        if type(layer).__name__ in _MIX_ROWS:
            raise ValueError(
                "augment changes each row by itself; labels stay as they are. Received: "
                f"augment={{{name!r}: {type(layer).__name__}}}, which mixes rows. Use it in dataset.map."
            )
    return layers


def _with_a_row(value: Any) -> tuple[Any, tf.Tensor | None]:
    """A batch for layers that can't do without a row, and its number of rows if that had to be looked at."""
    if not isinstance(value, tf.Tensor) or value.shape[0] is not None:
        return value, None
    shape = tf.shape(value)
    row = tf.concat([[1], shape[1:]], 0)
    padded = tf.cond(shape[0] == 0, lambda: tf.zeros(row, value.dtype), lambda: value)
    return tf.ensure_shape(padded, value.shape), shape[0]


def _apply(name: str, layer: Any, value: Any) -> Any:
    expected = f"augment[{name!r}] must be a layer that works on batches in a tf.data pipeline"
    options = {"training": True} if "training" in inspect.signature(layer.call).parameters else {}
    try:
        result = layer(value, **options)
    except Exception as error:
        raise ValueError(
            f"{expected}. Received: {layer!r}, which fails on {_described(value)}: {error}. Use one of Keras' "
            "preprocessing layers that fits the feature, or make it a part of the model."
        ) from error
    if layer.trainable_variables:
        raise ValueError(
            f"{expected}, where nothing is trained. Received: {layer!r} with {len(layer.trainable_variables)} "
            "trainable variables. Make it a part of the model."
        )
    return result


def _described(value: Any) -> str:
    return f"{type(value).__name__} of {value.dtype.name} and shape {value.shape}"
