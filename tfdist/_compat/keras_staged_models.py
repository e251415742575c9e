"""A Sequential or functional model whose graph of layers somebody else runs.

Upstream: `Function._run_through_graph` calls one operation after another, wherever the caller is.
Here: on one instance another function takes its place for tensors. Symbolic runs, which Keras needs for shapes and for
clones, stay upstream's. Seen in Keras 3.15.1. Can go when Keras' own pipeline, or a hook between layers, works on
TensorFlow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras.src import backend, tree
from keras.src.models.functional import Functional

#: Computes the graph's outputs, by their ids, from its inputs by their ids; wraps each operation before it is called.
Run = Callable[[dict[int, Any], Callable[[Any], Any]], dict[int, Any]]


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer, or of another operation of Keras, in a model's graph.

    Attributes:
        operation: what is called.
        inputs, outputs: ids of the graph's symbolic tensors.
        output_specs: shape, with None for rows, and dtype of each output.
        node: Keras' own record of the call.
    """

    operation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_specs: tuple[tuple[tuple[int | None, ...], str], ...]
    node: Any

    @property
    def name(self) -> str:
        """Of the operation."""
        return str(self.operation.name)

    @property
    def variables(self) -> list[Any]:
        """Of the layer and those inside it."""
        return list(getattr(self.operation, "variables", ()))

    @property
    def layers(self) -> list[Any]:
        """The layer and those inside it; none of operations without state."""
        return list(self.operation._flatten_layers()) if isinstance(self.operation, keras.layers.Layer) else []

    def run(self, values: dict[int, Any], wrap: Callable[[Any], Any]) -> None:
        """Call it on values of tensors by id, among which its outputs go."""
        args, kwargs = self.node.arguments.fill_in(values)
        results = tree.flatten(wrap(self.operation)(*args, **kwargs))
        values.update(zip(self.outputs, results, strict=False))


def graph_of(model: Any) -> Any:
    """What runs a model's layers; None where that is the model's own code, or it is not built.

    Raises:
        TypeError: it's neither Sequential nor functional.
    """
    if isinstance(model, keras.Sequential):
        return model._functional
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    raise TypeError(
        f"A pipeline cuts a model between layers that Keras knows. Expected: a Sequential or functional model. "
        f"Received: model {model.name!r} of {type(model).__name__}, whose call() is Python code. Write it as "
        "keras.Model(inputs, outputs)."
    )


def calls_of(graph: Any) -> list[LayerCall]:
    """All calls, in the order in which upstream makes them."""
    nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]
    return [
        LayerCall(
            node.operation,
            tuple(id(x) for x in node.input_tensors),
            tuple(id(x) for x in node.outputs),
            tuple((tuple(x.shape), x.dtype) for x in node.outputs),
            node,
        )
        for node in nodes
        if node.operation and not node.is_input
    ]


def input_ids(graph: Any) -> list[int]:
    """Ids of a graph's symbolic inputs."""
    return [id(x) for x in graph.inputs]


def output_ids(graph: Any) -> list[int]:
    """Ids of a graph's symbolic outputs."""
    return [id(x) for x in graph.outputs]


def run_by(graph: Any, run: Run) -> None:
    """Let a graph's tensors be computed by a function of one's own."""
    upstream = functools.partial(type(graph)._run_through_graph, graph)

    def run_through_graph(inputs: Any, operation_fn: Any = lambda op: op, call_fn: Any = None) -> Any:
        flat = tree.flatten(inputs)
        if call_fn is not None or any(x is None or isinstance(x, keras.KerasTensor) for x in flat):
            return upstream(inputs, operation_fn=operation_fn, call_fn=call_fn)
        values = run(dict(zip(input_ids(graph), flat, strict=True)), operation_fn)
        return tree.pack_sequence_as(graph._outputs_struct, [values[one] for one in output_ids(graph)])

    graph.__dict__["_run_through_graph"] = run_through_graph


def regularize_by(model: Any, loss_of: Callable[[Any], Any]) -> None:
    """Let the losses of a model's regularized variables be computed by a function of one's own."""

    def regularization_losses() -> list[Any]:
        return [loss_of(one) for one in model.trainable_weights if one.regularizer is not None]

    model.__dict__["_get_regularization_losses"] = regularization_losses


def mask_of(value: Any) -> Any:
    """The mask that Keras keeps beside a tensor; None without one."""
    return backend.get_keras_mask(value) if hasattr(value, "shape") else None


def set_mask(value: Any, mask: Any) -> None:
    """Keep a mask beside a tensor; nothing if there is none."""
    if mask is not None:
        backend.set_keras_mask(value, mask)


def losses_of(layers: list[Any]) -> list[tuple[list[Any], int]]:
    """The lists into which layers put their losses, and how many each has."""
    lists = [layer._losses for layer in layers]
    return [(losses, len(losses)) for losses in lists]
