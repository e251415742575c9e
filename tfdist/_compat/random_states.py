"""The process' own random states, beside those of layers.

Upstream: `keras.random` calls without a seed count up a global generator, operations without one draw theirs from a
generator of the eager context, and `tf.random.get_global_generator` makes its variable when it is first asked for.
None of the three can be looked up, or set, in public.
Here: they are, with those of Python and NumPy. Seen in TensorFlow 2.21 and Keras 3.15.1. Can go when they have
accessors; the layers' own seeds are in `model.variables`.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator
from tensorflow.python.eager import context
from tensorflow.python.ops import stateful_random_ops

#: Numbers in the state of the Mersenne Twister.
_MT19937_KEYS = 624


def layer_seeds(model: Any) -> list[Any]:
    """The states of the seed generators in a model, Keras variables."""
    others = {id(one) for one in (*model.weights, *model.metrics_variables)}
    return [one for one in model.variables if id(one) not in others]


def get_random_states() -> dict[str, np.ndarray]:
    """All that are there, as arrays by name."""
    states = _python_arrays("python", random)
    name, keys, position, has_gauss, gauss = np.random.get_state()
    if name == "MT19937":
        states["numpy"] = np.asarray([*keys, position, has_gauss], np.int64)
        states["numpy_gauss"] = np.asarray(gauss, np.float64)
    rng = _eager_random()
    if rng is not None:
        states |= _python_arrays("tensorflow", rng)
    for name, variable in _variables().items():
        states[name] = np.asarray(variable.numpy())
    return states


def set_random_states(states: dict[str, np.ndarray]) -> None:
    """Go on from what `get_random_states` returned in an earlier process."""
    _set_python(states, "python", random)
    if "numpy" in states:
        *keys, position, has_gauss = states["numpy"].tolist()
        # NumPy reads from wherever it is told to.
        if len(keys) != _MT19937_KEYS or not 0 <= position <= _MT19937_KEYS:
            raise ValueError(f"expected: a state of NumPy's generator. Received: {len(keys)} keys, position={position}")
        gauss = float(states["numpy_gauss"])
        np.random.set_state(("MT19937", np.asarray(keys, np.uint32), position, has_gauss, gauss))
    rng = _eager_random()
    if rng is not None:
        _set_python(states, "tensorflow", rng)
    if "keras_global" in states:
        global_seed_generator()
    if "tensorflow_global" in states:
        tf.random.get_global_generator()
    for name, variable in _variables().items():
        if name in states:
            variable.assign(states[name])


def _eager_random() -> Any:
    """Where operations without a seed get one; the context has it from when a global seed is set."""
    return getattr(context.context(), "_rng", None)


def _variables() -> dict[str, Any]:
    found = {}
    keras_global = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    if keras_global is not None:
        found["keras_global"] = keras_global.state
    if stateful_random_ops.global_generator is not None:
        found["tensorflow_global"] = stateful_random_ops.global_generator.state
    return found


def _python_arrays(name: str, rng: Any) -> dict[str, np.ndarray]:
    version, numbers, gauss = rng.getstate()
    arrays = {name: np.asarray([version, *numbers], np.int64)}
    if gauss is not None:
        arrays[f"{name}_gauss"] = np.asarray(gauss, np.float64)
    return arrays


def _set_python(states: dict[str, np.ndarray], name: str, rng: Any) -> None:
    if name in states:
        version, *numbers = states[name].tolist()
        gauss = states.get(f"{name}_gauss")
        rng.setstate((version, tuple(numbers), None if gauss is None else float(gauss)))
