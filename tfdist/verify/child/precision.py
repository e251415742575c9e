"""Everything in float64, whatever the script sets: rounding shrinks by 2^29, an error stays."""

from __future__ import annotations

import functools
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
    """Set Keras' precision, for good: the default, and that of layers which are given another."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    for module, name in _SETTERS:
        if hasattr(module, name):
            setattr(module, name, _ignore)
    keras.layers.Layer.__init__ = _in_float64(keras.layers.Layer.__init__)


def _in_float64(init: Any) -> Any:
    @functools.wraps(init)
    def make(self: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> None:
        # A last layer in float32 is what models in mixed precision have.
        is_float = "float" in str(getattr(dtype, "name", dtype))
        init(self, *args, dtype="float64" if is_float else dtype, **kwargs)

    return make


def _ignore(*args: Any, **kwargs: Any) -> None:
    """The script's own choice of precision."""
