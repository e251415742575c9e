"""Variables whose rows lie on several ps tasks (`variable_partitioner`), under Keras' layers and optimizers.

Upstream: `ShardedVariable` has no `device`, no gradient, no `__array__` and no checkpoint of its own, so Keras can
neither train, save nor load it; slots of optimizers aren't sharded; `sparse_read` gives rows in the shards' order;
`tf.identity` fails. `keras.ops.take` asks a variable for rows, but for its shape it reads the variable: a ps copies all
its rows for that, although nobody wants them.
Here: a subclass that has them, made by tfdist's strategy only. The gradient of all its shards is one gradient of the
whole variable, so clipping and loss scaling are Keras' own. An update runs once a shard, on the shard's ps: while it
does, the variable and its slots are that one shard. Optimizers that look at more than one element at a time (norms,
row statistics), and all that aren't Keras' own, update the whole variable.
Seen in TensorFlow 2.21, Keras 3.15.1. Can go when `ShardedVariable` works in Keras' layers and optimizers.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import numpy as keras_numpy
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from tensorflow.python.distribute.sharded_variable import ShardedVariable
from tensorflow.python.framework.composite_tensor_gradient import CompositeTensorGradient

from tfdist._compat import hooks
from tfdist._compat.keras_packed_variables import pushed

#: Optimizers that change each element by what they know of this element alone.
_ELEMENTWISE = frozenset(
    (
        keras.optimizers.SGD,
        keras.optimizers.RMSprop,
        keras.optimizers.Adam,
        keras.optimizers.AdamW,
        keras.optimizers.Adadelta,
        keras.optimizers.Adagrad,
        keras.optimizers.Adamax,
        keras.optimizers.Nadam,
        keras.optimizers.Ftrl,
        keras.optimizers.Lion,
    )
)

_distributed_tf_update_step = TFOptimizer._distributed_tf_update_step
_take = keras_numpy.take


def install() -> None:
    """Replace `TFOptimizer._distributed_tf_update_step` and what `keras.ops.take` calls."""
    TFOptimizer._distributed_tf_update_step = distributed_tf_update_step
    keras_numpy.take = take


def is_sharded(variable: Any) -> bool:
    """Whether a Keras variable is in shards."""
    return isinstance(variable._value, Shards)


def take(x: Any, indices: Any, axis: Any = None) -> Any:
    """Upstream's, which reads no more than rows of a variable that has them looked up."""
    if axis != 0 or not _looks_rows_up(x) or isinstance(indices, tf.SparseTensor):
        return _take(x, indices, axis=axis)
    if isinstance(indices, tf.RaggedTensor):
        return indices.with_flat_values(take(x, indices.flat_values, 0))
    indices = keras.ops.convert_to_tensor(indices)
    if indices.dtype.is_unsigned:
        return tf.gather(x, indices)
    return tf.gather(x, tf.where(indices < 0, indices + tf.cast(x.shape[0], indices.dtype), indices))


def distributed_tf_update_step(self: Any, distribution: Any, grads_and_vars: Any, learning_rate: Any) -> None:
    """Upstream's; of shards only where the optimizer works on each element by itself."""
    others = []
    for gradient, variable in grads_and_vars:
        if isinstance(variable, Shards) and type(self) not in _ELEMENTWISE:
            self.update_step(gradient, variable, learning_rate)
        else:
            others.append((gradient, variable))
    step = hooks.current_step()
    if step is not None and step.is_concurrent:
        others = pushed(others)
    if others:
        _distributed_tf_update_step(self, distribution, others, learning_rate)


def _looks_rows_up(x: Any) -> bool:
    return isinstance(x, keras.Variable) and hasattr(x, "sparse_read")


class _Gradient(CompositeTensorGradient):
    """How a tape finds the shards, and makes one gradient of theirs."""

    def get_gradient_components(self, value: Shards) -> list[tf.Tensor]:
        return [part.handle for part in value.variables]

    def replace_gradient_components(self, value: Shards, component_grads: list[Any]) -> Any:
        return value.join(component_grads)


class _Value(tf.TypeSpec):
    """What shards are to TensorFlow where it takes composite tensors apart (`tf.identity`): the whole value.

    Args:
        shape: of the whole.
        dtype: of the elements.
    """

    value_type = property(lambda self: Shards)

    def __init__(self, shape: tf.TensorShape, dtype: tf.DType) -> None:
        self._shape, self._dtype = shape, dtype

    def _serialize(self) -> tuple[tf.TensorShape, tf.DType]:
        return self._shape, self._dtype

    @property
    def _component_specs(self) -> tf.TensorSpec:
        return tf.TensorSpec(self._shape, self._dtype)

    def _to_components(self, value: Shards) -> tf.Tensor:
        return value.read_value()

    def _from_components(self, components: tf.Tensor) -> tf.Tensor:
        return components


class Shards(ShardedVariable):
    """A variable in shards along its first axis, in TensorFlow's "div" order.

    Args:
        parts: a `tf.Variable` a shard.
        name: of the whole.
        reference: the variable whose slot it is, with shards of the same sizes; None for a variable of its own.
    """

    __composite_gradient__ = _Gradient()

    def __init__(self, parts: list[tf.Variable], name: str | None, reference: Shards | None = None) -> None:
        super().__init__(list(parts), name=name or "Variable")
        self._id = f"{parts[0]._unique_id}_sharded"
        self._slots: list[weakref.ref[Shards]] = []
        if reference is not None:
            reference._slots.append(weakref.ref(self))

    @property
    def _type_spec(self) -> _Value:
        return _Value(self.shape, self.dtype)

    @property
    def _unique_id(self) -> str:
        return self._id  # also while it is but one of its shards

    @property
    def handle(self) -> Shards:
        """What a tape takes for the variable."""
        return self

    @property
    def device(self) -> str:
        """Of the first shard."""
        return self.variables[0].device

    def read_value(self) -> tf.Tensor:
        """All rows."""
        parts = [part.read_value() for part in self.variables]
        return parts[0] if len(parts) == 1 else tf.concat(parts, 0)

    value = read_value

    def sparse_read(self, indices: Any, name: str | None = None) -> tf.Tensor:
        """Some rows, each from the ps that holds it."""
        indices = tf.convert_to_tensor(indices)
        if indices.dtype not in (tf.int32, tf.int64):
            indices = tf.cast(indices, tf.int64)
        return tf.nn.embedding_lookup(list(self.variables), indices, name=name)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self.read_value(), dtype=dtype, name=name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype=dtype)

    def numpy(self) -> np.ndarray:
        """All rows."""
        return self.read_value().numpy()

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {"VARIABLE_VALUE": self.read_value()}

    def _restore_from_tensors(self, restored_tensors: dict[str, tf.Tensor]) -> Shards:
        return self.assign(restored_tensors["VARIABLE_VALUE"])

    def join(self, gradients: list[Any]) -> Any:
        """The whole variable's gradient from one for each shard, None for a shard that nothing was read of."""
        if all(gradient is None for gradient in gradients):
            return None
        if not any(isinstance(gradient, tf.Tensor) for gradient in gradients):
            return self._join_rows(gradients)
        parts = zip(gradients, self.variables, strict=True)
        return tf.concat([_dense(gradient, part) for gradient, part in parts], 0)

    def _join_rows(self, gradients: list[Any]) -> tf.IndexedSlices:
        values, indices = [], []
        for gradient, (first, *_) in zip(gradients, self._var_offsets, strict=True):
            if gradient is not None:
                values.append(gradient.values)
                indices.append(tf.cast(gradient.indices, tf.int64) + first)
        shape = tf.constant(self.shape.as_list(), tf.int64)
        return tf.IndexedSlices(tf.concat(values, 0), tf.concat(indices, 0), shape)

    def split(self, value: Any) -> list[Any]:
        """A value for each shard: its rows of what has the variable's shape, and anything else as it is."""
        if isinstance(value, tf.IndexedSlices):
            parts = zip(self._decompose_indexed_slices(value), self.variables, strict=True)
            return [
                tf.IndexedSlices(one.values, one.indices, tf.constant(part.shape.as_list(), one.indices.dtype))
                for one, part in parts
            ]
        if isinstance(value, tf.Tensor) and value.shape.rank == self.shape.rank:
            return tf.split(value, [part.shape[0] for part in self.variables])
        return [value] * len(self.variables)

    def update_each(self, update: Callable[..., Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> list[Any]:
        """Call `fn(variable, *args, **kwargs)` once a shard, which the variable and its slots are meanwhile.

        Args:
            update: Called with a shard, a function of it, and its arguments; calls this on the shard's device.
            fn: What to do.
            args: of which each shard is given its rows.
            kwargs: likewise.
        """
        pieces = [self.split(arg) for arg in args]
        named = {name: self.split(arg) for name, arg in kwargs.items()}
        results = []
        for index, part in enumerate(self.variables):
            own = tuple(piece[index] for piece in pieces), {name: piece[index] for name, piece in named.items()}
            with self._only(index):
                results.append(update(part, lambda _, *args, **kwargs: fn(self, *args, **kwargs), *own))
        return results

    @contextlib.contextmanager
    def _only(self, index: int) -> Iterator[None]:
        """In here the variable and its slots are one of their shards."""
        family = [self, *(slot for slot in (reference() for reference in self._slots) if slot is not None)]
        whole = [(one._variables, one._shape) for one in family]
        try:
            for one in family:  # all that is upstream's follows from these two fields
                one._variables = [one._variables[index]]
                one._shape = one._variables[0].shape
            yield
        finally:
            for one, (variables, shape) in zip(family, whole, strict=True):
                one._variables, one._shape = variables, shape


def _dense(gradient: Any, part: tf.Variable) -> tf.Tensor:
    if gradient is None:
        return tf.zeros(part.shape, part.dtype)
    return tf.ensure_shape(tf.convert_to_tensor(gradient), part.shape)


def read_rows(variable: Any, indices: Any, name: str | None = None) -> tf.Tensor:
    """Rows of a Keras variable, looked up where they lie.

    Set as `sparse_read` on a Keras variable it is what `tf.gather`, and so `keras.ops.take`, asks for rows.
    """
    if in_stateless_scope():  # its value may be another there
        return tf.gather(tf.convert_to_tensor(variable), indices)
    return variable._maybe_autocast(variable._value.sparse_read(indices, name=name))
