"""What is wrong with the content of a record, in words; asked only where parsing has failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfdist.data.features import Feature

_LISTS = {"float32": "float_list", "int64": "int64_list", "string": "bytes_list"}
_TYPES = {"float_list": "float32", "int64_list": "int64", "bytes_list": "string"}


def content_check(features: Mapping[str, Feature]) -> Callable[[bytes], str]:
    """A function that says why a record can't be parsed, or nothing if it can."""
    specs = [one for name, feature in features.items() for one in feature.parsing(name).items()]
    wanted = [column for spec in specs for column in _columns(*spec)]
    limits = {name: feature.max_values for name, feature in features.items() if feature.max_values is not None}

    def check(serialized: bytes) -> str:
        try:
            record = tf.train.Example.FromString(serialized).features.feature
        except Exception:
            return f"its {len(serialized)} bytes are no tf.train.Example"
        problems = (_problem(record, *one) for one in wanted)
        too_long = (_too_long(record, *one) for one in limits.items())
        return next(filter(None, (*problems, *too_long)), "")

    return check


def _columns(name: str, spec: Any) -> list[tuple[str, str, int | None, bool]]:
    """Name in the record, type, number of values if it's fixed, and whether it may be missing."""
    dtype = tf.as_dtype(spec.dtype).name
    if isinstance(spec, tf.io.FixedLenFeature):
        return [(name, dtype, math.prod(spec.shape), spec.default_value is not None)]
    if isinstance(spec, tf.io.FixedLenSequenceFeature):
        return [(name, dtype, None, spec.allow_missing)]
    if isinstance(spec, tf.io.SparseFeature):
        keys = [spec.index_key] if isinstance(spec.index_key, str) else list(spec.index_key)
        return [(spec.value_key, dtype, None, True), *((key, "int64", None, True) for key in keys)]
    if isinstance(spec, tf.io.RaggedFeature):
        return [(spec.value_key or name, dtype, None, True)]
    return [(name, dtype, None, True)]


def _problem(record: Any, name: str, dtype: str, count: int | None, may_be_missing: bool) -> str:
    kind = record[name].WhichOneof("kind") if name in record else None
    if kind is None:
        if may_be_missing:
            return ""
        return f"feature {name!r} is missing; the record has {', '.join(sorted(record)) or 'none'}"
    if kind != _LISTS[dtype]:
        return f"feature {name!r} is of type {_TYPES[kind]}; expected {dtype}"
    found = len(getattr(record[name], kind).value)
    if count is not None and found != count and not (found == 0 and may_be_missing):
        return f"feature {name!r} has {found} values; expected {count}"
    return ""


def _too_long(record: Any, name: str, most: int) -> str:
    kind = record[name].WhichOneof("kind") if name in record else None
    found = len(getattr(record[name], kind).value) if kind else 0
    return f"feature {name!r} has {found} values; expected at most {most}" if found > most else ""
