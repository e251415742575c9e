"""Comparisons of recordings that were made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.verify.recordings import make
from tfdist.verify.child.recorder import Recorder
from tfdist.verify.comparison import compare
from tfdist.verify.recording import Recording
from tfdist.verify.tolerance import Tolerance

pytestmark = pytest.mark.unit

#: Nothing for storage, a thousandth of the move.
TOLERANCE = Tolerance(0.0, 1e-3)
BEGIN = [[1.0, 2.0], [0.0]]
ROWS = [11, 12, 12]


def step(first=(2.0, 2.0), second=(1.0,), rows=ROWS, **logs):
    return ([first, second], {"loss": 1.0, **logs}, rows)


def both(tmp_path, one, other, **options):
    made = [make(tmp_path / name, BEGIN, steps) for name, steps in (("one", one), ("other", other))]
    return compare(*made, TOLERANCE, **options)


def test_equal(tmp_path):
    found = both(tmp_path, [step(), step()], [step(), step()])
    assert found.is_equal
    assert (found.steps, found.variables, found.logs) == (2, 2, {"loss"})
    assert found.worst_variable.excess == 0.0


def test_within_the_tolerance(tmp_path):
    """`first` has moved by 1, so it may be off by 1e-3; 2**-11 is less."""
    found = both(tmp_path, [step()], [step(first=(2.0, 2.0 + 2**-11))])
    assert found.is_equal
    assert found.worst_variable.name == "first"
    assert found.worst_variable.absolute == 2**-11
    assert found.worst_variable.allowed == pytest.approx(1e-3)
    assert found.worst_variable.excess == pytest.approx(2**-11 / 1e-3)


def test_the_first_step_and_the_worst_variable_are_found(tmp_path):
    """In step 2 `second` is off by a fourth of its move, `first` by an eighth; step 3 is worse, and comes later."""
    one = [step(), step(), step()]
    other = [step(), step(first=(2.125, 2.0), second=(1.25,)), step(second=(9.0,))]
    found = both(tmp_path, one, other)
    assert not found.is_equal
    assert [(one.step, one.name, one.absolute) for one in found.first] == [(2, "second", 0.25), (2, "first", 0.125)]
    assert found.medians == [0.0, pytest.approx(0.1875), pytest.approx(4.0)]
    assert found.sudden
    assert found.is_certain


def test_differences_that_were_there_before_are_not_sudden(tmp_path):
    """The tolerance of 1e-3 is passed in step 2, by 2**-4, where step 1 had 2**-11 of the move."""
    other = [step((2.0, 2.0 + size), (1.0 + size,)) for size in (2**-11, 2**-4)]
    found = both(tmp_path, [step(), step()], other)
    assert found.first[0].step == 2
    assert not found.is_certain


def test_before_the_first_step(tmp_path):
    one = make(tmp_path / "one", BEGIN, [step()])
    other = make(tmp_path / "other", [[1.0, 2.0], [0.5]], [step()])
    found = compare(one, other, TOLERANCE)
    assert (found.first[0].step, found.first[0].name) == (0, "second")
    assert found.is_certain


def test_logs(tmp_path):
    """A log may be off by a thousandth of its largest value, 4, in the run."""
    one = [step(loss=4.0), step(loss=2.0)]
    assert both(tmp_path / "a", one, [step(loss=4.0), step(loss=2.0 + 2**-9)]).is_equal
    found = both(tmp_path / "b", one, [step(loss=4.0), step(loss=2.0 + 2**-7)])
    assert [(one.step, one.kind, one.name) for one in found.first] == [(2, "log", "loss")]
    assert not found.sudden


def test_a_first_loss_that_differs_is_certain(tmp_path):
    found = both(tmp_path, [step(loss=4.0)], [step(loss=4.5)])
    assert found.is_certain


def test_a_log_that_is_missing_and_one_that_is_left_out(tmp_path):
    one, other = [step(extra=1.0)], [step()]
    assert both(tmp_path / "a", one, other).first[0].name == "extra"
    assert both(tmp_path / "b", one, other, without=frozenset({"extra"})).is_equal


def test_rows_in_another_order_are_the_same_rows(tmp_path):
    assert both(tmp_path, [step()], [step(rows=[12, 11, 12])]).is_equal


def test_other_rows(tmp_path):
    """Twice 11 and once 12 shares two rows with once 11 and twice 12."""
    found = both(tmp_path, [step(), step()], [step(), step(rows=[11, 11, 12])])
    assert (found.data.step, found.data.expected, found.data.received, found.data.common) == (2, 3, 3, 2)
    assert found.is_certain


def test_another_number_of_steps(tmp_path):
    found = both(tmp_path, [step(), step()], [step()])
    assert found.structure == "one device makes 2 steps and the other run 1"
    assert not found.is_equal


def test_a_model_without_weights_before_its_first_step(tmp_path):
    """All that they are is a move: 2 and 1, of which a thousandth is allowed."""
    made = [make(tmp_path / name, [], [step()], fit={"variables": PATHS}) for name in ("one", "other")]
    found = compare(*made, TOLERANCE)
    assert found.variables == 2
    assert found.is_equal
    assert found.worst_variable.allowed == pytest.approx(2e-3)


PATHS = [{"path": "first", "trainable": True}, {"path": "second", "trainable": True}]


def test_workers_that_drift_apart(tmp_path):
    make(tmp_path, BEGIN, [step(), step()])
    other = Recorder(tmp_path, 1)
    values = [np.array(value, "float32") for value in BEGIN]
    other.begin(values, {})
    other.step(1, {}, [np.array(value, "float32") for value in step()[0]], [])
    other.step(1, {}, values, [])
    recording = Recording.read(tmp_path)
    assert compare(recording, recording, TOLERANCE).workers_apart == 2


def test_rows_of_all_workers_are_put_together(tmp_path):
    one = make(tmp_path / "one", BEGIN, [step(rows=[11, 12])])
    make(tmp_path / "other", BEGIN, [step(rows=[12])])
    other = Recorder(tmp_path / "other", 1)
    other.begin([np.array(value, "float32") for value in BEGIN], {})
    other.take_rows(np.array([11], np.uint64))
    other.step(1, {}, [np.array(value, "float32") for value in step()[0]], [])
    assert compare(one, Recording.read(tmp_path / "other"), TOLERANCE).is_equal
