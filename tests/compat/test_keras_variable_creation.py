from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary
from tfdist import _compat

pytestmark = pytest.mark.unit
canary = Canary("keras_variable_creation")
VARIABLE = "keras.src.backend:Variable"


@pytest.fixture(autouse=True)
def installed():
    for name in ("_initialize", "_initialize_with_initializer"):
        canary.find(f"{VARIABLE}.{name}")
    canary.find("keras.src.backend.common:global_state.get_global_attribute")
    _compat.install()


@pytest.mark.parametrize("name", ["_initialize", "_initialize_with_initializer"])
def test_the_replaced_methods_have_the_same_parameters(name):
    shim = canary.module()
    canary.same_parameters(shim._upstream[name], getattr(shim, name.removeprefix("_")))


@pytest.mark.parametrize("initializer", [keras.initializers.Ones(), None], ids=["initializer", "value"])
def test_who_makes_a_variable_is_told_of_it(initializer):
    """Although the shim of parameter servers replaces the same method."""
    seen = []

    def creator(next_creator, **options):
        seen.append((canary.module().current_creation(), options["name"]))
        return next_creator(**options)

    with tf.variable_creator_scope(creator):
        made = keras.Variable(1.0 if initializer is None else initializer, shape=(), name="it")
    canary.check(len(seen) == 1, f"{len(seen)} variables of TensorFlow's are made for one of Keras'")
    (creation, name), *_ = seen
    canary.check(creation.variable is made, "a variable is made by another way than _initialize()")
    canary.check(creation.variable.path == "it" == name, "a variable has no path yet when it is made")
    assert creation.initializer is initializer
    assert canary.module().current_creation() is None


def test_an_optimizers_variables_are_told_apart():
    seen = []

    def creator(next_creator, **options):
        seen.append((options["name"].rpartition("/")[2], canary.module().current_creation().by_optimizer))
        return next_creator(**options)

    with tf.variable_creator_scope(creator):
        optimizer = keras.optimizers.Adafactor()
        optimizer.build([keras.Variable(tf.ones([2, 3]), name="embeddings")])
    own = ("iteration", True), ("learning_rate", True), ("embeddings", True)
    canary.check(set(own) < set(seen), f"an optimizer's name scope has another caller: {seen}")
    assert seen.count(("embeddings", False)) == 1


def test_a_model_can_be_built_without_values():
    with canary.module().shapes_only():
        inputs = keras.Input((4,))
        hidden = keras.layers.LayerNormalization()(keras.layers.Dense(1_000_000_000, name="large")(inputs))
        model = keras.Model(inputs, hidden)
    shapes = [tuple(weight.shape) for weight in model.weights]
    canary.check(shapes[0] == (4, 1_000_000_000), f"the shapes are {shapes}")


def test_names_are_given_again():
    with canary.module().shapes_only():
        first = keras.layers.Dense(1).name
    assert keras.layers.Dense(1).name == first
