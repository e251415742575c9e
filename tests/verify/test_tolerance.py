"""The rule by which rounding is told from an error, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfdist.verify.tolerance import FLOAT32, FLOAT64, Tolerance, difference, grows_like_rounding, is_sudden, largest

pytestmark = pytest.mark.unit


def test_what_a_variable_may_be_off():
    """8 * 0.25 * 2 for storage, and a tenth of its move of 3."""
    assert Tolerance(0.25, 0.1).of_variable(2.0, 3.0, 5.0) == pytest.approx(4.3)


def test_a_variable_that_hardly_moves_is_compared_with_what_others_move():
    """A hundredth of 500 is more than its own move."""
    assert Tolerance(0.0, 0.1).of_variable(2.0, 3.0, 500.0) == pytest.approx(0.5)


def test_logs_are_compared_with_their_largest_value():
    assert FLOAT32.of_log(2.0) == pytest.approx(2e-4)
    assert FLOAT64.of_log(2.0) == pytest.approx(2e-5)


@pytest.mark.parametrize(
    "medians, step, sudden",
    [
        ([0.5], 0, True),  # half of the move, in the first step
        ([1e-6, 1e-5, 0.5], 2, True),
        ([1e-6, 1e-3, 0.5], 2, False),  # it was growing before
        ([1e-3], 0, False),
        ([0.009], 0, False),
        ([0.01], 0, True),
    ],
)
def test_sudden_is_what_most_variables_do_at_once(medians, step, sudden):
    assert is_sudden(medians, step) == sudden


@pytest.mark.parametrize(
    "excesses, rounding",
    [
        ([0.001, 0.02, 0.3, 1.5, 9.0], True),
        ([0.0, 0.01, 0.9], True),
        ([0.001, 1.5], False),  # from nothing to more than is allowed
        ([0.5, 1.5], False),  # too large to begin with
        ([], True),
    ],
)
def test_rounding_begins_small_and_grows_slowly(excesses, rounding):
    assert grows_like_rounding(excesses) == rounding


def test_difference_is_the_largest_of_an_element():
    assert difference(np.array([1.0, 2.5, 3.0]), np.array([1.0, 2.0, 3.25])) == 0.5
    assert difference(np.array([]), np.array([])) == 0.0


def test_not_a_number_is_equal_to_itself_only():
    nan, inf = float("nan"), float("inf")
    assert difference(np.array([nan, inf]), np.array([nan, inf])) == 0.0
    assert difference(np.array([nan]), np.array([1.0])) == inf
    assert difference(np.array([1.0, 2.0]), np.array([1.0])) == inf


def test_largest_is_of_what_is_finite():
    assert largest(np.array([1.0, -3.0, float("inf"), float("nan")])) == 3.0
