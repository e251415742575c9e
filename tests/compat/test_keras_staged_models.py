from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from tests.compat.canary import Canary, parameters

pytestmark = pytest.mark.unit
canary = Canary("keras_staged_models")
RUN = "keras.src.ops.function:Function._run_through_graph"


def model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, kernel_regularizer="l2"), keras.layers.ReLU()])


def test_the_graphs_calls_are_listed():
    shim = canary.module()
    made = model()
    canary.has(made, "_functional")
    canary.has(made._functional, "_nodes_by_depth", "_outputs_struct", "inputs", "outputs")
    calls = shim.calls_of(shim.graph_of(made))
    canary.check([call.operation for call in calls] == made.layers, "a graph's nodes are not its layers' calls")
    canary.check(calls[0].outputs == calls[1].inputs, "nodes no longer share symbolic tensors")
    values = dict(zip(calls[0].inputs, [np.ones((1, 2), "float32")], strict=True))
    for call in calls:
        call.run(values, lambda operation: operation)
    np.testing.assert_allclose(values[calls[-1].outputs[0]], made(np.ones((1, 2), "float32")))


def test_a_model_runs_by_other_code_and_shapes_by_upstreams():
    shim, made, seen = canary.module(), model(), []
    graph = shim.graph_of(made)
    upstream = parameters(canary.find(RUN))[1:]

    def run(values, wrap):
        seen.extend(values)
        for call in shim.calls_of(graph):
            call.run(values, wrap)
        return values

    expected = made(np.ones((1, 2), "float32"))
    shim.run_by(graph, run)
    named = [(name, kind) for name, kind, _ in parameters(graph._run_through_graph)]
    canary.check(named == [(name, kind) for name, kind, _ in upstream], f"it has the parameters {upstream}")
    canary.check(made.compute_output_shape((4, 2)) == (4, 3), "shapes don't come from symbolic tensors")
    canary.check(seen == [], "symbolic tensors come without being KerasTensors")
    np.testing.assert_allclose(made(np.ones((1, 2), "float32")), expected)
    canary.check(seen == shim.input_ids(graph), "Functional.call no longer calls _run_through_graph")


def test_regularization_losses_come_from_one_method():
    shim, made = canary.module(), model()
    canary.find("keras.src.layers.layer:Layer._get_regularization_losses")
    shim.regularize_by(made, lambda variable: keras.ops.convert_to_tensor(7.0))
    canary.check([float(one) for one in made.losses] == [7.0], "losses has other regularization losses")


def test_other_models_are_left_alone():
    shim = canary.module()
    shim.run_by(shim.graph_of(model()), lambda values, wrap: {})
    other = model()
    assert inspect.ismethod(other._functional._run_through_graph)
    assert other(np.ones((1, 2), "float32")).shape == (1, 3)


def test_masks_are_kept_beside_tensors():
    shim = canary.module()
    embedded = keras.layers.Embedding(3, 2, mask_zero=True)(np.array([[0, 1]]))
    canary.check(shim.mask_of(embedded) is not None, "Embedding puts its mask elsewhere")
    other = keras.ops.ones((1, 2, 2))
    shim.set_mask(other, shim.mask_of(embedded))
    canary.check(shim.mask_of(other) is shim.mask_of(embedded), "a mask that was set is not found")


def test_models_that_are_python_code_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(TypeError, match="Received: model 'own' of Own"):
        canary.module().graph_of(Own(name="own"))
