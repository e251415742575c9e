"""Arguments of tfdist's strategies, as JSON has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_strategy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments in a contender's options; `{"name": "PowerSGD", "options": {...}}` is of tfdist.gradients."""
    return {key: _made(value) for key, value in options.get("arguments", {}).items()}


def _made(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    import tfdist

    return getattr(tfdist.gradients, value["name"])(**value.get("options", {}))
