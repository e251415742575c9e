"""What callbacks have learnt in training.

A callback with `get_state()` and `set_state(state)` says itself what that is: None, bools, numbers, text, arrays, and
lists, tuples and dicts of them. Of any other callback it is the attributes of these kinds that training has changed
since it began: `wait` and `best` of EarlyStopping, not its `patience`, which the script that goes on may give anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfdist.checkpoint.plain_values import from_json, to_json
from tfdist.log import logger

#: What `fit` sets.
_NEVER = {"params", "validation_data", "_model"}
#: Keras turns the sign of `min_delta` when it first chooses how to compare, and so it will in the next process.
_NOT_OF: dict[type, set[str]] = {
    keras.callbacks.EarlyStopping: {"min_delta"},
    keras.callbacks.ModelCheckpoint: {"min_delta"},
    keras.callbacks.ReduceLROnPlateau: {"min_delta"},
}
#: Callbacks with attributes of the process, such as whether they profile, and those that are to be kept.
_ONLY: dict[type, set[str]] = {keras.callbacks.TensorBoard: {"_global_train_batch", "_global_test_batch"}}


class CallbackStates:
    """The states of a `fit`'s callbacks, named by class and order.

    Args:
        callbacks: when all have had their `on_train_begin`.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = dict(_named(callbacks))
        self._at_first = {
            name: {key: _fingerprint(value) for key, value in _attributes(callback)}
            for name, callback in self._callbacks.items()
            if not _has_protocol(callback)
        }

    def get(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """States by name, as `json.dumps` takes them; arrays go into `arrays`.

        Raises:
            TypeError: a `get_state` returned something else than values and arrays.
        """
        states = {name: self._get(name, callback, arrays) for name, callback in self._callbacks.items()}
        return {name: state for name, state in states.items() if state}

    def _get(self, name: str, callback: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        place = f"callbacks/{name}"
        if _has_protocol(callback):
            try:
                return to_json(dict(callback.get_state()), arrays, place)
            except TypeError as error:
                raise TypeError(
                    f"Expected: get_state() of {name} to return numbers, text, arrays, and lists, tuples and dicts of "
                    f"them. Received: {error}. Return what set_state() can go on from."
                ) from error
        return {
            key: to_json(value, arrays, f"{place}/{key}")
            for key, value in _attributes(callback)
            if _fingerprint(value) not in (None, self._at_first[name].get(key))
        }

    def set(self, states: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on from what `get` returned in an earlier process."""
        for name, state in states.items():
            callback = self._callbacks.get(name)
            if callback is None:
                logger.info("the checkpoint has a state of %s, which isn't among the callbacks of this fit", name)
            elif _has_protocol(callback):
                callback.set_state(from_json(state, arrays))
            else:
                for key, value in state.items():
                    # Only what `get` would have given, whoever wrote the file: no methods, nothing of Python's.
                    of_class = getattr(type(callback), key, None)
                    is_method = callable(of_class) or isinstance(of_class, property)
                    if is_method or key in _NEVER or key.startswith("__"):
                        logger.warning("%s of %s, which the checkpoint has, is no state and is left out", key, name)
                        continue
                    setattr(callback, key, from_json(value, arrays))


def _has_protocol(callback: Any) -> bool:
    return callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None))


def _named(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    counts: dict[str, int] = {}
    for callback in callbacks:
        if isinstance(callback, (keras.callbacks.History, keras.callbacks.ProgbarLogger)):
            continue
        kind = type(callback).__name__
        counts[kind] = counts.get(kind, 0) + 1
        yield (kind if counts[kind] == 1 else f"{kind}.{counts[kind]}"), callback


def _attributes(callback: Any) -> Iterator[tuple[str, Any]]:
    only = next((names for kind, names in _ONLY.items() if isinstance(callback, kind)), set(vars(callback)))
    left_out = _NEVER.union(*(names for kind, names in _NOT_OF.items() if isinstance(callback, kind)))
    yield from ((name, value) for name, value in vars(callback).items() if name in only - left_out)


def _fingerprint(value: Any) -> str | None:
    """Equal for equal values; None for what can't be kept."""
    arrays: dict[str, np.ndarray] = {}
    try:
        text = json.dumps(to_json(value, arrays, ""))
    except (TypeError, ValueError, RecursionError):
        return None
    digest = hashlib.sha256(text.encode())
    for array in arrays.values():
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
