from __future__ import annotations

import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_worker_datasets")


def graph_of(dataset: tf.data.Dataset) -> tf.compat.v1.GraphDef:
    text = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor, external_state_policy=1, strip_device_assignment=True
    )
    return tf.compat.v1.GraphDef.FromString(text.numpy())


def test_datasets_say_what_they_were_made_from():
    dataset = tf.data.Dataset.range(3).map(lambda x: x).prefetch(1)
    for name in ("_OptionsDataset",):
        canary.find(f"tensorflow.python.data.ops.dataset_ops:{name}")
    canary.find("tensorflow.python.data.ops.prefetch_op:_PrefetchDataset")
    canary.has(dataset, "_inputs", "_variant_tensor")
    (mapped,) = dataset._inputs()
    canary.check(type(mapped).__name__ == "_MapDataset", "map() makes another class than _MapDataset")
    (parallel,) = dataset.map(lambda x: x, num_parallel_calls=2).prefetch(1)._inputs()
    canary.check(type(parallel).__name__ == "_ParallelMapDataset", "map() makes another class than _ParallelMapDataset")


def test_a_shuffle_has_two_seeds_and_its_state_last():
    (shuffle,) = [node for node in graph_of(tf.data.Dataset.range(3).shuffle(3, seed=1)).node if "Shuffle" in node.op]
    canary.check(shuffle.op in canary.module()._SHUFFLES, f"shuffle() makes {shuffle.op}")
    canary.check(len(shuffle.input) == 5, "ShuffleDatasetV3 has other inputs")
    canary.check("reshuffle_each_iteration" in shuffle.attr, "ShuffleDatasetV3.reshuffle_each_iteration is gone")


def test_a_shuffle_draws_the_seeds_of_a_pass_from_philox():
    dataset = tf.data.Dataset.range(50).shuffle(50, seed=3)
    passes = [list(dataset.as_numpy_iterator()) for _ in range(3)]
    text = canary.module().to_text(dataset, 1 << 20)
    again = [list(text.open(tf.constant(text.filling(text.seeds(0, i)))).as_numpy_iterator()) for i in range(3)]
    canary.check(passes == again, "a shuffle's seeds of each pass come from another stream")


def test_an_iterator_is_kept_under_its_name():
    module = canary.module()
    for path in ("IteratorV2", "MakeIterator", "DatasetFromGraph", "StatelessRandomUniformFullIntV2"):
        canary.check(hasattr(tf.raw_ops, path), f"tf.raw_ops.{path} is gone")

    @tf.function
    def begin() -> None:
        module.NamedIterator("canary", tf.TensorSpec([], tf.int64)).begin(tf.data.Dataset.range(7, 9))

    @tf.function
    def following() -> tf.Tensor:
        return module.NamedIterator("canary", tf.TensorSpec([], tf.int64)).next().get_value()

    begin()
    canary.check([int(following()), int(following())] == [7, 8], "an iterator is not found again by its name")
