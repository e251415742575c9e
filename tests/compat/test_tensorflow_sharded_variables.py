from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_sharded_variables")
SHARDED = "tensorflow.python.distribute.sharded_variable:ShardedVariable"
OPTIMIZER = "keras.src.backend.tensorflow.optimizer:TFOptimizer"
VALUES = np.arange(15, dtype="float32").reshape(5, 3)


def parts() -> list[tf.Variable]:
    return [tf.Variable(VALUES[:3], name="part_0"), tf.Variable(VALUES[3:], name="part_1")]


@pytest.fixture
def stock():
    """Upstream's own."""
    return canary.find(SHARDED)(parts())


@pytest.fixture
def shards():
    """Ours."""
    return canary.module().Shards(parts(), "table")


def test_what_is_used_of_upstream_is_there(stock):
    canary.has(stock, "_variables", "_shape", "_var_offsets", "variables", "shape", "dtype")
    canary.takes(stock._decompose_indexed_slices, tf.IndexedSlices(VALUES[:1], [0]))
    canary.find("tensorflow.python.framework.composite_tensor_gradient:CompositeTensorGradient")
    canary.find("keras.src.backend.common.stateless_scope:in_stateless_scope")


def test_upstream_has_no_gradient(stock):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.convert_to_tensor(stock))
    try:
        gradient = tape.gradient(loss, stock)
    except (AttributeError, ValueError):
        return
    canary.check(gradient is None, "tapes differentiate ShardedVariable; that part can go")


def test_upstream_reads_rows_in_the_order_of_shards(stock):
    rows = stock.sparse_read(tf.constant([4, 0])).numpy()
    canary.check(rows[0, 0] == VALUES[0, 0], "sparse_read keeps the order of indices; that part can go")


@pytest.mark.parametrize("name", ["device", "__array__"])
def test_upstream_lacks(stock, name):
    canary.check(not hasattr(stock, name), f"ShardedVariable has {name}; that part can go")


def test_two_fields_make_it_one_of_its_shards(stock):
    stock._variables, stock._shape = stock._variables[1:], tf.TensorShape([2, 3])
    stock.assign(tf.ones([2, 3]))
    stock.scatter_add(tf.IndexedSlices(tf.ones([1, 3]), tf.constant([1])))
    found = tf.convert_to_tensor(stock).numpy()
    canary.check(np.array_equal(found, [[1] * 3, [2] * 3]), "not all of ShardedVariable follows from these fields")


def test_gather_asks_for_sparse_read():
    canary.check(not hasattr(keras.Variable(VALUES), "sparse_read"), "keras.Variable has a sparse_read; ours can go")
    variable = keras.Variable(VALUES)
    variable.sparse_read = read = Recorder(tf.constant(VALUES[:1]))
    keras.ops.take(variable, [0], axis=0)
    canary.check(read.was_called, "keras.ops.take doesn't call sparse_read of a variable")


def test_upstream_reads_a_variable_for_its_shape():
    variable = looking_rows_up()
    ops = reading(lambda ids: canary.module()._take(variable, ids, axis=0), tf.int32)
    canary.check("ReadVariableOp" in ops, "take() knows a variable's shape without reading it; ours can go")


def test_take_is_replaced_where_it_is_called(monkeypatch):
    canary.find("keras.src.backend:numpy.take")
    monkeypatch.setattr("keras.src.backend.numpy.take", take := Recorder(tf.constant(VALUES)))
    keras.ops.take(keras.Variable(VALUES), [0], axis=0)
    canary.check(take.was_called, "keras.ops.take calls something else than keras.src.backend.numpy.take")
    canary.same_parameters(canary.module()._take, canary.module().take)


def looking_rows_up() -> keras.Variable:
    """As variables are that tfdist's strategy makes."""
    variable = keras.Variable(VALUES)
    variable.sparse_read = lambda indices, name=None: variable.value.sparse_read(tf.cast(indices, "int64"), name=name)
    return variable


def reading(function, dtype) -> set[str]:
    """Types of what the graph of a function of ids is made of."""
    graph = tf.function(function).get_concrete_function(tf.TensorSpec([None, 2], dtype)).graph
    return {op.type for op in graph.get_operations()}


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_take_reads_rows_alone(dtype):
    variable, take = looking_rows_up(), canary.module().take
    assert "ReadVariableOp" not in reading(lambda ids: take(variable, ids, axis=0), dtype)
    ids = np.array([[4, 0], [0, 3]], dtype)
    np.testing.assert_array_equal(take(variable, ids, axis=0), VALUES[ids])
    ragged = tf.RaggedTensor.from_row_lengths(ids.ravel(), [3, 1])
    assert take(variable, ragged, axis=0).to_list() == [VALUES[[4, 0, 0]].tolist(), VALUES[[3]].tolist()]
    if dtype != "uint8":
        np.testing.assert_array_equal(take(variable, [-1, 0], axis=0), VALUES[[4, 0]])
    np.testing.assert_array_equal(take(variable, [1], axis=1), VALUES[:, [1]])


def test_the_replaced_method_has_the_same_parameters():
    canary.find(f"{OPTIMIZER}._distributed_tf_update_step")
    shim = canary.module()
    canary.same_parameters(shim._distributed_tf_update_step, shim.distributed_tf_update_step)


def test_updates_go_through_the_replaced_method(monkeypatch):
    update = Recorder()
    monkeypatch.setattr(canary.find(OPTIMIZER), "_distributed_tf_update_step", update)
    optimizer, variable = keras.optimizers.SGD(), keras.Variable(1.0)
    optimizer.build([variable])
    optimizer.apply([tf.constant(1.0)])
    canary.check(update.was_called, "optimizers update by other ways than _distributed_tf_update_step()")


def test_elementwise_optimizers_have_elementwise_slots():
    for class_ in canary.module()._ELEMENTWISE:
        optimizer, variable = class_(), keras.Variable(VALUES)
        optimizer.build([variable])
        shapes = {tuple(one.shape) for one in optimizer.variables} - {()}
        canary.check(shapes <= {(5, 3)}, f"{class_.__name__} has slots of other shapes: {shapes}")


def test_gradient_is_one_of_the_whole(shards):
    with tf.GradientTape(persistent=True) as tape:
        rows = tf.reduce_sum(shards.sparse_read(tf.constant([4, 0, 4], tf.uint8)) ** 2)
        whole = rows + tf.reduce_sum(tf.convert_to_tensor(shards))
        first = tf.reduce_sum(shards[:2])
    expected = np.zeros([5, 3])
    expected[[0, 4]] = 2 * VALUES[0], 4 * VALUES[4]
    sparse = tape.gradient(rows, shards)
    assert isinstance(sparse, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(sparse), expected)
    np.testing.assert_array_equal(tf.convert_to_tensor(tape.gradient(whole, shards)), expected + 1)
    np.testing.assert_array_equal(tape.gradient(first, shards), [[1] * 3] * 2 + [[0] * 3] * 3)
    assert tape.gradient(tf.constant(1.0), shards) is None


def test_reads(shards):
    np.testing.assert_array_equal(shards.sparse_read([4, 0, 3]), VALUES[[4, 0, 3]])
    np.testing.assert_array_equal(np.asarray(shards), VALUES)
    np.testing.assert_array_equal(tf.identity(shards), VALUES)
    np.testing.assert_array_equal(tf.cast(shards, tf.float64) + 1, VALUES + 1)


def test_updates_see_one_shard_of_the_variable_and_its_slots(shards):
    slot = canary.module().Shards([tf.Variable(tf.zeros([3, 3])), tf.Variable(tf.zeros([2, 3]))], "slot", shards)
    seen, key = [], shards._unique_id

    def update(variable, gradient, rate):
        assert variable._unique_id == key
        slot.assign_add(gradient * 2)
        variable.assign_sub(slot * rate)
        seen.append((tuple(variable.shape), tuple(gradient.shape), tuple(slot.shape)))

    shards.update_each(lambda part, fn, args, kwargs: fn(part, *args, **kwargs), update, (tf.ones([5, 3]), 0.5), {})
    assert seen == [((3, 3),) * 3, ((2, 3),) * 3]
    assert shards.shape == slot.shape == (5, 3)
    np.testing.assert_array_equal(shards, VALUES - 1)


def test_checkpoints_know_nothing_of_shards(shards, tmp_path):
    path = tf.train.Checkpoint(one=shards).save(str(tmp_path / "sharded"))
    whole = tf.Variable(tf.zeros([5, 3]))
    tf.train.Checkpoint(one=whole).read(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(whole, VALUES)
    path = tf.train.Checkpoint(one=tf.Variable(VALUES + 1)).save(str(tmp_path / "whole"))
    tf.train.Checkpoint(one=shards).read(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(shards, VALUES + 1)
