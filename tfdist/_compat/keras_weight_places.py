"""Variables of a model by their places in `.weights.h5`, and values for them that are asked for one by one.

Upstream: what is saved is given to a store value by value, each whole, optimizers' as arrays; what is loaded is read
whole. The walk over a model's parts is private, and takes private stores only.
Here: a store that is given the variables themselves, and stores that ask where each value comes from, so that a
variable in parts is never put together. Seen in Keras 3.15.1. Can go when Keras saves and loads by the part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from keras.src.saving.saving_lib import (
    H5IOStore,
    NpzIOStore,
    _load_state,
    _raise_loading_failure,
    safe_get_h5_dataset,
)

from tfdist._compat.keras_weight_files import walk

#: Gives the value for a place: of the shape there, by a function of parts.
ValueFor = Callable[[str, tuple[int, ...], Callable[[list[Any]], list[Any]]], Any]
#: Is told of variables in parts that are made while values are loaded, with their places; None where there are none.
Expected = Callable[[str, Any], None] | None


def place_of(path: str, name: str) -> str:
    """Where a value is in the file, in an entry that Keras calls so."""
    return f"{path}/vars/{name}" if path else f"vars/{name}"


class _Variables(NpzIOStore):
    """Is given values, or variables where `takes_variables` is asked for."""

    def __init__(self) -> None:
        super().__init__("", mode="w")

    def make(self, path: str, metadata: Any = None) -> dict[str, Any]:
        """A part of the model begins."""
        self.contents[path] = VariableEntry()
        return self.contents[path]


class VariableEntry(dict[str, Any]):
    """Of one part of a model; takes Keras' or TensorFlow's variables as they are."""


def weights_by_place(model: Any) -> dict[str, Any]:
    """What `model.save_weights` would write: variables, and arrays of what isn't kept in a variable.

    Args:
        model: a built model.
    """
    store = _Variables()
    walk(model, store)
    return {place_of(path, name): one for path, entry in store.contents.items() for name, one in entry.items()}


class ValuesInParts:
    """Values of one part of a model, by name, as stores give them that are asked for each.

    Attributes:
        are_in_parts: whether there may be variables in parts.
    """

    are_in_parts: bool

    def keys(self) -> Any:
        """Names that the file has."""
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        raise NotImplementedError

    def expect(self, name: str, variable: Any) -> None:
        """A value is to be in the layout of a variable, which has only now been made."""
        raise NotImplementedError


class _Entry(Mapping[str, Any], ValuesInParts):
    def __init__(self, path: str, names: list[str], value: Callable[[str], Any], expected: Expected) -> None:
        self._path, self._names, self._value, self._expected = path, names, value, expected
        self.are_in_parts = expected is not None

    def expect(self, name: str, variable: Any) -> None:
        if self._expected is not None:
            self._expected(place_of(self._path, name), variable)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"{place_of(self._path, name)!r} is not in the file")
        return self._value(place_of(self._path, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Values(NpzIOStore):
    def __init__(self, places: list[str], value: Callable[[str], Any], expected: Expected) -> None:
        super().__init__("", mode="w")
        self._names: dict[str, list[str]] = {}
        self._value, self._expected = value, expected
        for place in places:
            before, _, name = place.rpartition("/")
            self._names.setdefault(before.removesuffix("vars").rstrip("/"), []).append(name)

    def get(self, path: str) -> Mapping[str, Any]:
        """A part of the model asks for its values."""
        return _Entry(path, self._names.get(path, []), self._value, self._expected)


class _H5Values(H5IOStore, ValuesInParts):
    are_in_parts = True

    def __init__(self, path: str, in_parts: Mapping[str, Any], value: ValueFor, expected: Expected) -> None:
        super().__init__(path, mode="r")
        self._in_parts, self._value, self._expected = in_parts, value, expected

    def expect(self, name: str, variable: Any) -> None:
        if self._expected is not None:
            self._expected(place_of(self._h5_entry_path, name), variable)

    def __getitem__(self, key: str) -> Any:
        place = place_of(self._h5_entry_path, key)
        if place not in self._in_parts:
            return super().__getitem__(key)
        dataset = safe_get_h5_dataset(self._h5_entry_group, key)
        is_bfloat16 = dataset.attrs.get("dtype") == "bfloat16"

        def read(parts: list[Any]) -> list[np.ndarray]:
            arrays = [np.asarray(dataset[part]) for part in parts]
            return [array.view(ml_dtypes.bfloat16) for array in arrays] if is_bfloat16 else arrays

        return self._value(place, tuple(dataset.shape), read)


def load_values(model: Any, places: list[str], value: Callable[[str], Any], expected: Expected = None) -> None:
    """As `model.load_weights`, of a file that has these places.

    Args:
        model: a built model.
        places: of all values.
        value: gives the value of a place.
        expected: see `Expected`.

    Raises:
        ValueError: the file has other values than the model.
    """
    _load(model, _Values(places, value, expected))


def load_h5_in_parts(model: Any, path: str, in_parts: Mapping[str, Any], value: ValueFor, expected: Expected) -> None:
    """As `model.load_weights` of a `.weights.h5`, of which these places are read by the part.

    Args:
        model: a built model.
        path: of the file.
        in_parts: variables by place.
        value: gives the value of such a place.
        expected: adds to them.

    Raises:
        ValueError: the file has other values than the model.
    """
    store = _H5Values(path, in_parts, value, expected)
    try:
        _load(model, store)
    finally:
        store.close()


def _load(model: Any, store: Any) -> None:
    failed: set[int] = set()
    errors: dict[int, Any] = {}
    _load_state(
        model,
        weights_store=store,
        assets_store=None,
        inner_path="",
        visited_saveables=set(),
        failed_saveables=failed,
        error_msgs=errors,
    )
    if failed:
        _raise_loading_failure(errors)
