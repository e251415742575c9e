"""What callbacks have learnt comes back; what the script says anew does not."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from tests.helpers.setups import features, labels
from tfdist.checkpoint.callback_states import CallbackStates
from tfdist.checkpoint.plain_values import from_json, to_json

pytestmark = pytest.mark.unit


class Learns(keras.callbacks.Callback):
    def __init__(self, option: int = 1) -> None:
        super().__init__()
        self.option, self.seen, self.best, self.open_file = option, [], None, object()


class Says(keras.callbacks.Callback):
    def __init__(self, state):
        super().__init__()
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def saved(states: CallbackStates) -> tuple[dict, dict]:
    """As it comes back from files."""
    arrays: dict[str, np.ndarray] = {}
    return json.loads(json.dumps(states.get(arrays))), arrays


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        0.1,
        float("inf"),
        "text",
        [1, [2, "x"]],
        (1, (2.5,)),
        {"a": 1},
        {1: "a", (2, 3): [4]},
        {"__array__": "a name that is ours"},
    ],
)
def test_plain_values_come_back(value):
    arrays: dict[str, np.ndarray] = {}
    found = from_json(json.loads(json.dumps(to_json(value, arrays, "name"))), arrays)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("value", [np.arange(6, dtype="int8").reshape(2, 3), np.float32(0.1), np.zeros([0, 2])])
def test_arrays_come_back_with_their_types(value):
    arrays: dict[str, np.ndarray] = {}
    found = from_json(json.loads(json.dumps(to_json({"a": [value]}, arrays, "name"))), arrays)["a"][0]
    assert found.dtype == value.dtype and np.shape(found) == np.shape(value)
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), b"bytes"])
def test_nothing_else_is_kept(value):
    with pytest.raises(TypeError):
        to_json([value], {}, "name")


def test_what_training_changed_comes_back_and_options_are_the_scripts():
    before = Learns(option=1)
    states = CallbackStates([before])
    assert saved(states)[0] == {}
    before.seen.append(3)
    before.best = [np.ones(2)]
    before.open_file = object()
    state, arrays = saved(states)
    after = Learns(option=2)
    CallbackStates([after]).set(state, arrays)
    assert after.seen == [3] and after.option == 2
    np.testing.assert_array_equal(after.best[0], [1, 1])


def test_two_of_a_class_are_told_apart():
    first, second = Learns(), Learns()
    states = CallbackStates([first, second])
    second.seen.append(1)
    state, arrays = saved(states)
    others = [Learns(), Learns()]
    CallbackStates(others).set(state, arrays)
    assert [one.seen for one in others] == [[], [1]]


def test_a_callback_may_say_itself_what_its_state_is():
    state, arrays = saved(CallbackStates([Says({"a": np.arange(2), "b": (1,)})]))
    after = Says(None)
    CallbackStates([after]).set(state, arrays)
    assert after.state["b"] == (1,)
    np.testing.assert_array_equal(after.state["a"], [0, 1])


def test_a_state_that_cannot_be_kept_is_named():
    with pytest.raises(TypeError, match=r"get_state\(\) of Says.*callbacks/Says/a is object"):
        CallbackStates([Says({"a": object()})]).get({})


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.callbacks.EarlyStopping("loss", min_delta=0.1, patience=3, restore_best_weights=True),
        lambda: keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.1, patience=1),
    ],
)
def test_keras_own_compare_as_before(make):
    """Their `min_delta` changes its sign at the first comparison of a process."""
    x, y = features(8), labels(8)

    def train(callback, epochs, states=None):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        callback.set_model(model)
        callback.on_train_begin()
        found = CallbackStates([callback])
        if states:
            found.set(*states)
        model.evaluate(x, y, verbose=0)
        for epoch in epochs:
            callback.on_epoch_end(epoch, {"loss": 1.0 - 0.06 * epoch})
        return found

    whole, first, second = make(), make(), make()
    train(whole, range(5))
    train(second, range(2, 5), saved(train(first, range(2))))
    for name in ("wait", "best", "min_delta", "best_epoch", "cooldown_counter"):
        assert getattr(second, name, None) == getattr(whole, name, None), name
