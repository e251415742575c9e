from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from tests.compat.canary import Canary
from tests.helpers.setups import features, labels, weights

pytestmark = pytest.mark.unit
canary = Canary("keras_weight_files")


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, dtype="bfloat16"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(features(8), labels(8), verbose=0)
    return model


def test_the_walk_and_the_stores_are_there(model):
    save_state = canary.find("keras.src.saving.saving_lib:_save_state")
    canary.takes(save_state, model, weights_store=None, assets_store=None, inner_path="", visited_saveables=set())
    store = canary.find("keras.src.saving.saving_lib:NpzIOStore")("", mode="w")
    canary.check(store.contents == {}, "NpzIOStore keeps no `contents`, or opens its file at once")
    canary.takes(canary.find("keras.src.saving.saving_lib:H5IOStore"), "path", mode="w")


def test_plain_keras_loads_the_file(model, tmp_path):
    copies = canary.module().copy_weights(model)
    (tmp_path / "own.weights.h5").write_bytes(copies.to_h5())
    expected, optimizer = weights(model), [np.asarray(v.numpy()) for v in model.optimizer.variables]
    model.fit(features(8), labels(8), verbose=0)
    assert not np.array_equal(weights(model), expected)
    model.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_array_equal(weights(model), expected)
    for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_file_is_what_keras_writes(model, tmp_path):
    model.save_weights(tmp_path / "keras.weights.h5")
    copies = canary.module().copy_weights(model)
    (tmp_path / "own.weights.h5").write_bytes(copies.to_h5())
    found, expected = (entries(tmp_path / f"{name}.weights.h5") for name in ("own", "keras"))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_attributes_are_kept_under_another_name_than_they_are_looked_up():
    find = canary.find("keras.src.saving.saving_lib:get_attr_skipset")
    with ThreadPoolExecutor(1) as thread:  # whose state nobody has touched
        first, second = thread.submit(lambda: (find("Layer"), find("Layer"))).result()
    canary.check(first == second, "get_attr_skipset returns something else each time")
    canary.check(first is not second, "get_attr_skipset remembers; `_left_out` can go")


def test_they_are_found_out_once(model, monkeypatch):
    module = canary.module()
    module.copy_weights(model)
    made = []
    monkeypatch.setattr(keras.Layer, "__init__", lambda *args, **kwargs: made.append(args))
    module.copy_weights(model)
    assert not made


def entries(path) -> dict:
    import h5py

    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, one: found.update({name: one[()]} if isinstance(one, h5py.Dataset) else {name: 0}))
    return found


def test_copies_do_not_change_with_the_model(model):
    copies = canary.module().copy_weights(model)
    before = {path: dict(part) for path, part in copies.contents.items()}
    kept = {path: {name: array.copy() for name, array in part.items()} for path, part in before.items()}
    model.fit(features(8), labels(8), verbose=0)
    for path, part in before.items():
        for name, array in part.items():
            np.testing.assert_array_equal(array, kept[path][name])


def kernel_of(copies) -> np.ndarray:
    """Of the last layer."""
    return next(part["0"] for part in copies.contents.values() if part and part["0"].shape == (8, 3))


def test_memory_is_taken_again(model):
    copies = canary.module().copy_weights(model)
    before = {(path, name): array for path, part in copies.contents.items() for name, array in part.items()}
    model.fit(features(8), labels(8), verbose=0)
    again = canary.module().copy_weights(model, copies)
    assert before.keys() == {(path, name) for path, part in again.contents.items() for name in part}
    assert all(again.contents[path][name] is array for (path, name), array in before.items())
    np.testing.assert_array_equal(kernel_of(again), model.layers[-1].kernel.numpy())


def test_memory_of_another_shape_is_not(model):
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8)])
    copies = canary.module().copy_weights(model, canary.module().copy_weights(other))
    np.testing.assert_array_equal(kernel_of(copies), model.layers[-1].kernel.numpy())
