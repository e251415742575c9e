"""Numbers of any dtype and shape come out of a report as they went in."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfdist.coordination.reports import ReportFormat

pytestmark = pytest.mark.unit

VALUES = {
    "float32": tf.constant([[0.1, -3e38], [2e-38, 7.0]]),
    "float64": tf.constant(1 / 3, tf.float64),
    "float16": tf.constant([65504.0, 6e-8], tf.float16),
    "bfloat16": tf.constant([1.0, 3e38], tf.bfloat16),
    "int64 up to 2^53": tf.constant([2**53, -(2**53)], tf.int64),
    "int32": tf.constant(2**31 - 1),
    "uint8": tf.constant([255], tf.uint8),
    "bool": tf.constant([True, False]),
    "no elements": tf.zeros([0, 3]),
    "three axes": tf.reshape(tf.range(24.0), [2, 3, 4]),
}


def assert_same(found: list[tf.Tensor], expected: list[tf.Tensor]) -> None:
    """To the bit."""
    assert [(one.dtype, one.shape) for one in found] == [(one.dtype, one.shape) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_exactly(name):
    report = ReportFormat()
    assert_same(report.unpack(report.pack([VALUES[name]])), [VALUES[name]])


def test_what_is_not_finite_stays_so():
    report = ReportFormat()
    values = tf.constant([float("inf"), float("-inf"), float("nan")])
    assert_same(report.unpack(report.pack([values])), [values])


def test_many_values_come_back_in_their_order():
    report, values = ReportFormat(), list(VALUES.values())
    vector = report.pack(values)
    assert vector.shape == [sum(value.shape.num_elements() for value in values)]
    assert_same(report.unpack(vector), values)


def test_the_format_is_learnt_when_a_function_is_traced():
    report = ReportFormat()
    packing = tf.function(lambda x: report.pack([x, x > 1, tf.cast(x[0], tf.int64)]))
    vector = packing(tf.constant([1.0, 2.0]))
    assert vector.dtype == tf.float64
    assert_same(report.unpack(vector), [tf.constant([1.0, 2.0]), tf.constant([False, True]), tf.constant(1, tf.int64)])


def test_there_may_be_nothing_to_report():
    report = ReportFormat()
    vector = report.pack([])
    assert vector.shape == [0]
    assert report.unpack(vector) == []


def test_a_shape_that_depends_on_the_data_is_refused():
    report = ReportFormat()
    packing = tf.function(lambda x: report.pack([x]), input_signature=[tf.TensorSpec([None])])
    with pytest.raises(ValueError, match=r"Received: shape=\(None,\).*Return a mean"):
        packing.get_concrete_function()
