"""Steps that are parsed together, cut apart so that each is as if it had been parsed alone.

Rows of different lengths are parsed to the longest of all. Sparse rows know their own lengths, so a step's can be cut
to the longest of its own; for dense rows, which `tf.io.FixedLenSequenceFeature` gives, a value can't be told from
padding, so steps with such features aren't parsed together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfdist.data.rows import take_rows


def can_be_cut(specs: Mapping[str, Any]) -> bool:
    """Whether several steps can be parsed together.

    Args:
        specs: As `tf.io.parse_example` takes them.
    """
    return not any(isinstance(spec, tf.io.FixedLenSequenceFeature) for spec in specs.values())


def cut_step(parsed: Mapping[str, Any], specs: Mapping[str, Any], begin: tf.Tensor, end: tf.Tensor) -> dict[str, Any]:
    """Rows begin to end of what was parsed.

    Args:
        parsed: What `tf.io.parse_example` returned for `specs`.
        specs: As `tf.io.parse_example` takes them.
        begin, end: int64 scalars.
    """
    rows = take_rows(dict(parsed), begin, end)
    varying = [name for name, spec in specs.items() if isinstance(spec, tf.io.VarLenFeature)]
    return rows | {name: _shortened(rows[name]) for name in varying}


def _shortened(rows: tf.SparseTensor) -> tf.SparseTensor:
    """Cut to the longest row."""
    last = tf.reduce_max(tf.concat([tf.constant([-1], tf.int64), rows.indices[:, 1]], 0))
    return tf.SparseTensor(rows.indices, rows.values, tf.stack([rows.dense_shape[0], last + 1]))
