from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tests.compat.canary import Canary
from tests.helpers.setups import features, labels, weights
from tfdist import _compat

pytestmark = pytest.mark.unit
canary = Canary("keras_weight_places")


@pytest.fixture
def model() -> keras.Model:
    _compat.install()  # optimizers give variables then
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, dtype="bfloat16"), keras.layers.BatchNormalization()]
    )
    model.compile("adam", "mse")
    model.fit(features(8), np.stack([labels(8)] * 8, 1), verbose=0)
    return model


def state(model: keras.Model) -> np.ndarray:
    return np.concatenate([np.asarray(one, "float64").ravel() for one in [*model.weights, *model.optimizer.variables]])


def test_what_is_used_is_there() -> None:
    load_state = canary.find("keras.src.saving.saving_lib:_load_state")
    canary.takes(
        load_state,
        None,
        weights_store=None,
        assets_store=None,
        inner_path="",
        visited_saveables=set(),
        failed_saveables=set(),
        error_msgs={},
    )
    canary.find("keras.src.saving.saving_lib:_raise_loading_failure")
    canary.find("keras.src.saving.saving_lib:safe_get_h5_dataset")


def test_variables_have_the_places_of_the_file(model: keras.Model, tmp_path: Path) -> None:
    """The optimizer's among them, as variables and not as arrays."""
    model.save_weights(tmp_path / "own.weights.h5")
    found = canary.module().weights_by_place(model)
    with h5py.File(tmp_path / "own.weights.h5") as file:
        for place, variable in found.items():
            canary.check(place in file, f"{place} is not in Keras' file")
            canary.check(isinstance(variable, keras.Variable), f"{place} is given as {type(variable).__name__}")
    assert {id(one) for one in found.values()} == {id(one) for one in [*model.weights, *model.optimizer.variables]}


def test_values_are_asked_for_one_by_one(model: keras.Model) -> None:
    values = {place: np.asarray(one) for place, one in canary.module().weights_by_place(model).items()}
    expected = state(model)
    model.fit(features(8), np.stack([labels(8)] * 8, 1), verbose=0)
    assert not np.array_equal(state(model), expected)
    canary.module().load_values(model, list(values), values.__getitem__)
    np.testing.assert_array_equal(state(model), expected)


def test_a_file_is_read_by_the_part(model: keras.Model, tmp_path: Path) -> None:
    """bfloat16 too, which HDF5 doesn't know."""
    model.save_weights(tmp_path / "own.weights.h5")
    expected, asked = weights(model), []
    found = canary.module().weights_by_place(model)
    for variable in model.trainable_variables:
        variable.assign(variable + 1)

    def value(place: str, shape: tuple[int, ...], read: Any) -> np.ndarray:
        asked.append(place)
        half = shape[0] // 2
        return np.concatenate(read([(slice(0, half),), (slice(half, shape[0]),)]))

    in_parts = {place: one for place, one in found.items() if len(one.shape) > 0}
    canary.module().load_h5_in_parts(model, str(tmp_path / "own.weights.h5"), in_parts, value, None)
    np.testing.assert_array_equal(weights(model), expected)
    assert sorted(asked) == sorted(in_parts)


def test_another_model_is_refused(model: keras.Model) -> None:
    values = {place: np.asarray(one) for place, one in canary.module().weights_by_place(model).items()}
    places = [place for place in values if not place.startswith("layers/dense/")]
    with pytest.raises(ValueError, match="expected 2 variables"):
        canary.module().load_values(model, places, values.__getitem__)
