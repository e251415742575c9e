"""What every feature is: a typed column of records, that says how it is written and how it is read.

Written: `encode` makes of one value what `tf.train.Example` holds. Read: `parsing` says what
`tf.io.parse_example` has to look for, `check` whether what it found is all right, `finish` makes of it the tensor that
the user gets. Before that, a reader may take any rows of what was found.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf


class Feature(abc.ABC):
    """A typed column of records."""

    kind: ClassVar[str]  # its name in files
    encodes_slowly: ClassVar[bool] = False  # whether a thread should encode, outside of Python's lock

    @abc.abstractmethod
    def encode(self, name: str, value: Any) -> dict[str, tf.train.Feature]:
        """Returns what a `tf.train.Example` holds of one record's value.

        Raises:
            TypeError: If the value has another dtype or type.
            ValueError: If it has another shape.
        """

    @abc.abstractmethod
    def parsing(self, name: str) -> dict[str, Any]:
        """Returns what `tf.io.parse_example` takes; keys are the name, or start with it and a slash."""

    @property
    def max_values(self) -> int | None:
        """How many values a record may have, of a feature of any number of them; None is no limit."""
        return None

    def check(self, name: str, parsed: dict[str, Any]) -> None:
        """Asserts that no record has more than `max_values`."""
        if self.max_values is not None:
            too_long = f"Feature {name!r} has more values in a record than its length. Declare it with a larger length."
            tf.debugging.assert_less_equal(
                parsed[name].indices[:, 1] + 1, tf.constant(self.max_values, tf.int64), too_long
            )

    @abc.abstractmethod
    def finish(self, name: str, parsed: dict[str, Any]) -> Any:
        """Returns the tensor with records in dimension 0, of what was parsed, or of some rows of it."""

    def snapshot(self, name: str, value: Any) -> Any:
        """Returns a checked value, which later changes of `value` don't reach; for slow features only."""
        return value

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, as `from_json` takes them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind, **fields}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Feature:
        """Returns the feature that has these fields, without its kind."""
        return cls(**fields)


def checked_shape(shape: Any, *, name: str = "shape", smallest: int = 0) -> tuple[int, ...]:
    """Returns a shape as a tuple.

    Raises:
        TypeError: If it is no sequence of integers.
        ValueError: If a dimension is less than `smallest`.
    """
    is_shape = isinstance(shape, Sequence | tf.TensorShape) and not isinstance(shape, str | bytes)
    dims = tuple(shape) if is_shape else (None,)
    if any(isinstance(dim, bool) or not hasattr(dim, "__index__") for dim in dims):
        raise TypeError(
            f"{name} must be a sequence of integers. Received: {name}={shape!r}. For values of any length use "
            "tfdist.data.VariableLength or tfdist.data.Ragged."
        )
    if any(dim < smallest for dim in dims):
        raise ValueError(f"Dimensions must be at least {smallest}. Received: {name}={shape!r}. Correct it.")
    return tuple(int(dim) for dim in dims)
