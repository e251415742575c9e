"""Datasets that other processes read: as text, with seeds of their own for each pass, in iterators that have names.

Upstream: a dataset can be serialized, but one that shuffles without a seed then has another order in each process; the
coordinator's per-worker iterators can't be told where to begin, and are made anew when any worker starts anew.
Here: the seeds in the text are put in when a pass begins, the same in every process; iterators are found by name in the
process, which keeps them between calls.
Seen in TensorFlow 2.21. Can go when a dataset can be given seeds from outside and an iterator a name.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.python.data.ops import dataset_ops, iterator_ops, prefetch_op
from tensorflow.python.data.util import structure

from tfdist._compat import tensorflow_py_functions as py_functions

#: Their state is in the process that made them.
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "GeneratorDataset"}
#: Datasets of random elements, and shuffles of whole tensors: each process would have its own.
_UNSEEDED_OPS = {"RandomDataset", "RandomDatasetV2", "RandomShuffle"}
_SHUFFLES = {"ShuffleDatasetV3": (2, 3), "ShuffleAndRepeatDatasetV2": (2, 3)}
_ONE_TO_ONE = (dataset_ops._OptionsDataset, prefetch_op._PrefetchDataset)
_PHILOX = 1
_SEED_BYTES, _NAME_BYTES = 8, 16
_SEED_MARK, _NAME_MARK = b"\xfdtfdist\xfe", b"tfdist seed name"


@dataclass(frozen=True)
class Seeds:
    """Of one shuffle.

    Attributes:
        given: As upstream keeps them, 0 and 0 for none.
        reshuffles: Whether passes differ.
        in_graph: Whether the graph itself makes several passes, and reshuffles.
    """

    given: tuple[int, int]
    reshuffles: bool
    in_graph: bool

    def of_pass(self, job_seed: int, number: int) -> tuple[int, int]:
        """What a pass shuffles with; where a seed was given, that is what one device has.

        Upstream's SeedGenerator takes two numbers for each pass from a Philox stream (Salmon et al., "Parallel random
        numbers: as easy as 1, 2, 3", 2011), which gives four at a time.
        """
        given = self.given if any(self.given) else (job_seed + 1, job_seed + 1)
        if not self.reshuffles or (self.in_graph and number == 0):
            return given
        key, stream = (tf.constant([one % 2**64], tf.uint64) for one in given)
        counter = tf.concat([tf.constant([number // 2], tf.uint64), stream], 0)
        four = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[4], key=key, counter=counter, dtype=tf.uint32, alg=_PHILOX
        ).numpy()
        first = number % 2 * 2
        return int(four[first]), int(four[first + 1])


@dataclass(frozen=True)
class DatasetText:
    """A dataset in a form that any process can read.

    Attributes:
        pieces: Its graph, cut where something is filled in.
        shuffles: The seeds of its shuffles, in the order of the cuts.
        spec: Of an element.
        autotunes: Whether the user asked for tf.data's autotuning.
    """

    pieces: tuple[bytes, ...]
    shuffles: tuple[Seeds, ...]
    spec: Any
    autotunes: bool

    @property
    def digest(self) -> str:
        """The same for the same data."""
        return hashlib.sha256(b"".join([*self.pieces, str(self.spec).encode()])).hexdigest()[:16]

    def seeds(self, job_seed: int, number: int) -> list[tuple[int, int]]:
        """Of each shuffle in a pass."""
        with tf.device("CPU:0"):
            return [one.of_pass(job_seed, number) for one in self.shuffles]

    def filling(self, seeds_of_pass: list[tuple[int, int]]) -> bytes:
        """What goes between the pieces: for each shuffle two seeds and the name of its state."""
        parts = []
        for seeds in seeds_of_pass:
            parts += [seed.to_bytes(_SEED_BYTES, "little", signed=True) for seed in seeds]
            # Never the same, or a shuffle would go on with the state of another pass that is still open.
            parts.append(uuid.uuid4().hex[:_NAME_BYTES].encode())
        return b"".join(parts)

    def open(self, filling: tf.Tensor) -> tf.data.Dataset:
        """The dataset, in a graph that runs in any process; `filling` is a string scalar."""
        parts, position = [tf.constant(self.pieces[0])], 0
        for index, piece in enumerate(self.pieces[1:]):
            size = _NAME_BYTES if index % 3 == 2 else _SEED_BYTES
            parts += [tf.strings.substr(filling, position, size), piece]
            position += size
        # Nothing of what is only known at run time, or TensorFlow would fold the dataset to a constant, which fails.
        parts.append(tf.strings.substr(filling, 0, 0))
        variant = tf.raw_ops.DatasetFromGraph(graph_def=tf.strings.join(parts))
        return tf.data.experimental.from_variant(variant, self.spec)


class NotReadableElsewhere(ValueError):
    """A dataset that only the process which made it can read; the text says why."""


def to_text(dataset: tf.data.Dataset, max_bytes: int) -> DatasetText:
    """The dataset as text.

    Raises:
        NotReadableElsewhere: it calls Python, needs what lies in this process's memory, or is larger than max_bytes.
    """
    try:
        text = tf.raw_ops.DatasetToGraphV2(
            input_dataset=dataset._variant_tensor, external_state_policy=1, strip_device_assignment=True
        ).numpy()
    except tf.errors.OpError as error:
        raise NotReadableElsewhere(f"TensorFlow cannot serialize it ({error.message})") from error
    if len(text) > max_bytes:
        raise NotReadableElsewhere(f"its description has {len(text)} bytes, for it holds data")
    graph = tf.compat.v1.GraphDef.FromString(text)
    _check(graph)
    shuffles = _mark_seeds(graph)
    text = graph.SerializeToString(deterministic=True)
    pieces = tuple(text.replace(_NAME_MARK, _SEED_MARK).split(_SEED_MARK))
    return DatasetText(pieces, tuple(shuffles), dataset.element_spec, bool(dataset.options().autotune.enabled))


def _check(graph: Any) -> None:
    inner = [node for function in graph.library.function for node in function.node_def]
    for node in inner:
        if "Shuffle" in node.op:
            raise NotReadableElsewhere("it shuffles inside of a function")
    for node in [*graph.node, *inner]:
        if node.op in _PYTHON_OPS and not py_functions.is_registered_token(_text(node, "token")):
            raise NotReadableElsewhere("it calls Python functions")
        if node.op in _UNSEEDED_OPS:
            raise NotReadableElsewhere(f"{node.op} gives other values in each process")
        if _text(node, "deterministic") == b"false":
            raise NotReadableElsewhere(f"{node.op} with deterministic=False has another order in each process")
    by_name = {node.name: node for node in graph.node}
    for node in graph.node:
        for name in node.input:
            source = by_name.get(name.split(":")[0].lstrip("^"))
            is_resource = source is not None and source.op == "Const" and _dtype(source) == tf.resource
            if is_resource and node.op not in _SHUFFLES and "Shuffle" not in node.op:
                raise NotReadableElsewhere(f"{node.op} uses a table or variable of this process")


def _text(node: Any, attribute: str) -> bytes:
    # Asking for an attribute that isn't there would add it.
    return node.attr[attribute].s if attribute in node.attr else b""


def _dtype(node: Any) -> tf.DType:
    return tf.as_dtype(node.attr["dtype"].type)


def _mark_seeds(graph: Any) -> list[Seeds]:
    """Puts a mark in place of each seed, and has shuffles take them as they are; the seeds, in the text's order."""
    constants = {node.name: node for node in graph.node if node.op == "Const"}
    functions = [node for function in graph.library.function for node in function.node_def]
    repeats = any("Repeat" in node.op for node in [*graph.node, *functions])
    shuffles = []
    for node in [node for node in graph.node if node.op in _SHUFFLES]:
        seeds = [
            int(tf.make_ndarray(constants[node.input[place]].attr["value"].tensor)) for place in _SHUFFLES[node.op]
        ]
        for place in _SHUFFLES[node.op]:
            _add_mark(graph, node, place, _seed_mark())
        _add_mark(graph, node, len(node.input) - 1, _state_mark())
        shuffles.append(Seeds((seeds[0], seeds[1]), node.attr["reshuffle_each_iteration"].b, repeats))
        node.attr["reshuffle_each_iteration"].b &= repeats
    return shuffles


def _add_mark(graph: Any, node: Any, place: int, value: Any) -> None:
    # A node of its own, since equal constants may be one; the last in the text so far.
    mark = graph.node.add(name=f"tfdist_mark/{len(graph.node)}", op="Const")
    mark.attr["dtype"].type = value.dtype
    mark.attr["value"].tensor.CopyFrom(value)
    node.input[place] = mark.name


def _seed_mark() -> Any:
    return tensor_pb2.TensorProto(dtype=tf.int64.as_datatype_enum, tensor_content=_SEED_MARK)


def _state_mark() -> Any:
    state = tensor_pb2.TensorProto(dtype=tf.resource.as_datatype_enum)
    state.resource_handle_val.add(container="tfdist", name=_NAME_MARK.decode())
    return state


def is_one_to_one(dataset: tf.data.Dataset, is_origin: Callable[[Any], bool]) -> bool:
    """Whether a dataset's n-th element is made of the origin's n-th."""
    while not is_origin(dataset):
        is_map = type(dataset).__name__ in ("_MapDataset", "_ParallelMapDataset")
        if not is_map and not isinstance(dataset, _ONE_TO_ONE):
            return False
        (dataset,) = dataset._inputs()
    return True


class NamedIterator:
    """An iterator in the process that runs the graph, kept under a name between runs.

    Args:
        name: Of the iterator.
        spec: Of an element.
    """

    def __init__(self, name: str, spec: Any) -> None:
        self._handle = tf.raw_ops.IteratorV2(
            shared_name=name,
            container="",
            output_types=structure.get_flat_tensor_types(spec),
            output_shapes=structure.get_flat_tensor_shapes(spec),
        )
        self._iterator = iterator_ops.OwnedIterator(components=[self._handle], element_spec=spec)

    def begin(self, dataset: tf.data.Dataset) -> tf.Operation:
        """Let it go through a dataset from its beginning."""
        return tf.raw_ops.MakeIterator(dataset=dataset._variant_tensor, iterator=self._handle)

    def next(self) -> tf.experimental.Optional:
        """The next element, if there is one."""
        return self._iterator.get_next_as_optional()
