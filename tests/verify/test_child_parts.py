"""Sketches, numbers of rows, batches cut and joined, random layers, call sites: what a child process is made of."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdist.verify.child import sketch
from tfdist.verify.child.batches import cut_dataset, join_dataset, steps_of
from tfdist.verify.child.call_sites import CallSites, script_line
from tfdist.verify.child.fits import LEFT_OUT, _with
from tfdist.verify.child.probe import View, findings, row_sketch
from tfdist.verify.child.random_layers import make_inert
from tfdist.verify.child.rows import note_rows, row_numbers

pytestmark = pytest.mark.unit


def test_small_variables_are_kept_as_they_are():
    value = np.arange(6, dtype="float32").reshape(2, 3)
    assert np.array_equal(sketch.keep(value), value.ravel())
    assert sketch.keep(np.array([True, False])).dtype == np.float64


def test_one_element_of_a_large_variable_shows_in_its_sketch(monkeypatch):
    monkeypatch.setattr(sketch, "_CHUNK", 1000)
    value = np.random.RandomState(0).randn(sketch.MOST_ELEMENTS + 1)
    other = value.copy()
    other[777] += 0.5
    difference = sketch.keep(other) - sketch.keep(value)
    assert sketch.keep(value).shape == (sketch.BUCKETS,)
    assert np.abs(difference).max() == pytest.approx(0.5)
    assert np.count_nonzero(np.abs(difference) > 1e-9) == 1


def numbers(*leaves):
    taken = []
    note_rows(leaves, tf.constant(True), taken.append)
    return taken[0].tolist()


def test_a_row_has_the_same_number_wherever_it_is():
    x, y = tf.constant([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), tf.constant([7, 8, 7])
    whole = numbers(x, y)
    assert whole[0] == whole[2] != whole[1]
    assert numbers(x[1:], y[1:]) == whole[1:]
    assert numbers(x, tf.constant([7, 8, 9]))[2] != whole[2]


def test_rows_of_strings_ragged_and_sparse_tensors():
    texts = tf.constant(["a", "bc", "a"])
    ragged = tf.ragged.constant([[1, 2], [], [1, 2]])
    sparse = tf.sparse.from_dense([[0, 5], [0, 0], [0, 5]])
    for leaf, rest in ((texts, texts[1:]), (ragged, ragged[1:]), (sparse, tf.sparse.slice(sparse, [1, 0], [2, 2]))):
        found = numbers(leaf)
        assert found[0] == found[2] != found[1]
        assert numbers(rest) == found[1:]


def test_rows_that_are_padded_further_are_the_same():
    """The same two rows, alone and beside a longer one; a zero in front is none."""
    short = row_numbers(["dense"], [[np.array([[3, 0, 5], [0, 7, 0]])]])
    long = row_numbers(["dense"], [[np.array([[3, 0, 5, 0], [0, 7, 0, 0], [0, 7, 0, 1]])]])
    assert short.tolist() == long[:2].tolist()
    assert len({*long.tolist(), *row_numbers(["dense"], [[np.array([[7]])]]).tolist()}) == 4


def test_deeper_ragged_rows_with_the_same_values_differ():
    assert len(set(numbers(tf.ragged.constant([[[1], [2]], [[1, 2]]])))) == 2


def test_scalars_have_no_rows_and_a_stand_in_counts_for_nothing():
    taken = []
    note_rows((tf.constant(3.0),), tf.constant(True), taken.append)
    assert not taken
    note_rows((tf.zeros([1, 2]),), tf.constant(False), taken.append)
    assert taken[0].tolist() == []


def test_row_numbers_are_64_bits_of_the_bytes():
    found = row_numbers(["dense"], [[np.array([[1], [2]], "int32")]])
    assert found.dtype == np.uint64
    assert found[0] != found[1]


def rows(dataset):
    return [x.tolist() for x, _ in dataset.as_numpy_iterator()]


def test_batches_are_cut_as_replicas_cut_them():
    """[n*s//3, n*(s+1)//3): 5 rows as 1, 2, 2, and one row as 0, 0, 1."""
    data = tf.data.Dataset.from_tensor_slices((np.arange(6), np.arange(6))).batch(5)
    assert rows(cut_dataset(data, 3)) == [[0], [1, 2], [3, 4], [], [], [5]]
    assert int(cut_dataset(data, 3).cardinality()) == 6


def test_batches_are_joined_with_their_leftovers():
    data = tf.data.Dataset.from_tensor_slices((np.arange(7), np.arange(7))).batch(2)
    assert rows(join_dataset(data, 3)) == [[0, 1, 2, 3, 4, 5], [6]]
    assert int(join_dataset(data, 3).cardinality()) == 2
    assert int(join_dataset(data.repeat(), 3).cardinality()) == tf.data.INFINITE_CARDINALITY


def test_datasets_of_dictionaries_are_cut_and_joined_too():
    data = tf.data.Dataset.from_tensor_slices({"a": np.arange(4)}).batch(2)
    assert [element["a"].tolist() for element in cut_dataset(data, 2).as_numpy_iterator()] == [[0], [1], [2], [3]]
    assert [element["a"].tolist() for element in join_dataset(data, 2).as_numpy_iterator()] == [[0, 1, 2, 3]]


@pytest.mark.parametrize("asked", [lambda step: 2, {"steps": 2, "leftover": "carry"}])
def test_accumulation_that_one_device_can_not_put_together(asked):
    from tfdist.gradients import AccumulationOptions

    with pytest.raises(ValueError, match="Expected: an integer gradient_accumulation_steps"):
        steps_of(AccumulationOptions(**asked) if isinstance(asked, dict) else asked)


def test_random_layers_are_made_inert_and_others_left_alone():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.5, name="drop")(keras.layers.Dense(4, name="dense")(inputs))
    hidden = keras.layers.Dropout(0.0, name="nothing")(keras.layers.GaussianNoise(1.0, name="noise")(hidden))
    model = keras.Model(inputs, hidden)
    x = np.ones((3, 4), "float32")
    assert not np.array_equal(model(x, training=True), model(x, training=False))
    assert make_inert(model) == ["drop", "noise"]
    assert np.array_equal(model(x, training=True), model(x, training=False))


def test_calls_of_the_script_are_noted_with_their_lines():
    sites = CallSites()

    def watched():
        sites.note("kind", "what")

    watched()
    (site,) = sites.sites["kind"]
    assert site["where"].startswith("tests/verify/test_child_parts.py:")
    assert (site["what"], site["in_step"], site["after_gradients"]) == ("what", False, False)


def test_lines_of_libraries_are_none_of_the_script():
    assert script_line(np.__file__, 3) is None
    assert script_line(keras.__file__, 3) is None
    assert script_line("<frozen runpy>", 3) is None


def test_callbacks_that_write_files_are_left_out():
    logger, early = keras.callbacks.CSVLogger("never.csv"), keras.callbacks.EarlyStopping()
    recorder = keras.callbacks.Callback()
    assert _with([logger, early], recorder, None) == [early, recorder]
    assert _with(early, recorder, None) == [early, recorder]
    assert _with(None, recorder, None) == [recorder]
    assert keras.callbacks.ModelCheckpoint in LEFT_OUT


def test_row_sketches_keep_rows_apart():
    output = np.random.RandomState(0).randn(3, 10, 20)
    found = row_sketch(output)
    assert found.shape == (3, 64)
    assert np.array_equal(row_sketch(output[1:]), found[1:])


def view(count, outputs, loss, gradient, applied):
    parts = {"layer|Dense|0|0": np.array(outputs, "float64")}
    return View(count, parts, [loss], [np.array(gradient, "float64")], [np.array(applied, "float64")])


def test_slices_that_add_up():
    """Three rows, cut into one and two: means weigh by rows."""
    whole = view(3, [[1.0], [2.0], [3.0]], 4.0, [1.0, 2.0], [1.0, 2.0])
    one = view(1, [[1.0]], 2.0, [3.0, 0.0], [3.0, 0.0])
    two = view(2, [[2.0], [3.0]], 5.0, [0.0, 3.0], [0.0, 3.0])
    found = findings(whole, one, two)
    assert found["layers"] == []
    assert all(found[what]["difference"] < 1e-12 for what in ("losses", "gradients", "applied"))
    assert found["gradients"]["factor"] == pytest.approx(1.0)


def test_a_sum_gives_the_share_of_a_slice():
    """Two rows with losses 2 and 6, added up: 8, where the slices' mean is 4."""
    found = findings(
        view(2, [[1.0], [2.0]], 8.0, [2.0, 4.0], [2.0, 4.0]),
        view(1, [[1.0]], 2.0, [2.0, 0.0], [2.0, 0.0]),
        view(1, [[2.0]], 6.0, [0.0, 4.0], [0.0, 4.0]),
    )
    assert found["losses"]["factor"] == pytest.approx(0.5)
    assert found["gradients"]["factor"] == pytest.approx(0.5)


def test_a_layer_that_mixes_rows_is_found():
    found = findings(
        view(2, [[-0.5], [0.5]], 1.0, [1.0], [1.0]),
        view(1, [[0.0]], 1.0, [1.0], [1.0]),
        view(1, [[0.0]], 1.0, [1.0], [1.0]),
    )
    assert found["layers"] == [{"path": "layer", "class": "Dense", "difference": 1.0}]
