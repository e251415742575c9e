"""Everything in float64, whatever the script sets: rounding shrinks by 2^29, an error stays."""

from __future__ import annotations

from typing import Any

import keras

#: Public names under which a script may set another precision.
_SETTERS = (
    (keras.config, "set_floatx"),
    (keras.config, "set_dtype_policy"),
    (keras.backend, "set_floatx"),
    (keras.mixed_precision, "set_global_policy"),
    (keras.mixed_precision, "set_dtype_policy"),
)


def compute_in_float64() -> None:
    """Set Keras' default precision, for good; layers that are given a dtype keep it."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    for module, name in _SETTERS:
        if hasattr(module, name):
            setattr(module, name, _ignore)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """The script's own choice of precision."""
