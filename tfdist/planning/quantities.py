"""Numbers with units, as people write them."""

from __future__ import annotations

import re

from tfdist.errors import TfdistError

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)"


class QuantityError(TfdistError):
    """A number, or its unit, that can't be understood."""


def number(text: str) -> float:
    """A number above 0: `1.2e9`, `1.2G`, `70k`."""
    value, unit = _split(text, "a number such as 1.2e9 or 1.2G")
    if unit not in _PREFIXES:
        raise _unknown(text, "a number such as 1.2e9 or 1.2G")
    return value * _PREFIXES[unit]


def bytes_of(text: str) -> float:
    """Bytes: `80GB`, `16GiB`; without a unit, bytes."""
    wanted = "bytes such as 80GB or 16GiB"
    value, unit = _split(text, wanted)
    prefix = unit.removesuffix("B")
    scale = {**_PREFIXES, **_BINARY}.get(prefix)
    if scale is None:
        raise _unknown(text, wanted)
    return value * scale


def rate(text: str) -> float:
    """Bytes a second: `100Gbit`, `100Gbit/s`, `900GB/s`; a bit is an eighth of a byte."""
    wanted = "bits or bytes a second such as 100Gbit or 300GB"
    value, unit = _split(text, wanted)
    unit = unit.removesuffix("/s").removesuffix("ps")
    for name, size in (("bits", 1 / 8), ("bit", 1 / 8), ("b", 1 / 8), ("B", 1.0)):
        scale = {**_PREFIXES, **_BINARY}.get(unit.removesuffix(name))
        if unit.endswith(name) and scale is not None:
            return value * scale * size
    raise _unknown(text, wanted)


def seconds(text: str) -> float:
    """Seconds: `20us`, `1.5ms`, `0.2`, `5h`."""
    wanted = "a time such as 20us, 150ms, 0.2s or 5h"
    value, unit = _split(text, wanted)
    if unit not in _SECONDS:
        raise _unknown(text, wanted)
    return value * _SECONDS[unit]


def _split(text: str, wanted: str) -> tuple[float, str]:
    match = re.fullmatch(_NUMBER, text.strip())
    if match is None or not 0 < float(match[1]) < float("inf"):
        raise _unknown(text, wanted)
    return float(match[1]), match[2]


def _unknown(text: str, wanted: str) -> QuantityError:
    return QuantityError(f"Expected: {wanted}, above 0. Received: {text!r}.")


def in_seconds(value: float) -> str:
    """A time, in the unit that suits it."""
    for unit in ("s", "ms", "us"):
        if value >= _SECONDS[unit] or unit == "us":
            return f"{value / _SECONDS[unit]:.3g} {unit}"
    raise AssertionError


def in_bytes(value: float) -> str:
    """A size, in the unit that suits it."""
    prefix = next((one for one in reversed(_PREFIXES) if value >= _PREFIXES[one]), "")
    return f"{value / _PREFIXES[prefix]:.3g} {prefix}B"
