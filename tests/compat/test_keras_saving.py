from __future__ import annotations

import keras
import pytest

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_saving")
METHODS = ("save", "save_weights", "export")


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_the_path_first(name):
    canary.takes(canary.find(f"keras:Model.{name}"), object(), "path")


@pytest.mark.parametrize("module", ["saving", "models"])
def test_functions_take_model_and_path_first(module):
    canary.takes(canary.find(f"keras:{module}.save_model"), object(), "path")


@pytest.mark.parametrize("name", METHODS)
def test_no_kind_of_model_has_a_method_of_its_own(name):
    """One that the shim does not wrap would write on every worker."""
    kinds = [keras.Sequential, canary.find("keras.src.models.functional:Functional")]
    own = [kind.__name__ for kind in kinds if name in vars(kind)]
    canary.check(not own, f"{own} have a {name}() of their own")


def test_saving_does_not_pass_through_two_wrapped_functions(model, monkeypatch, tmp_path):
    """The other workers wait once for each file, so the chief must announce it once."""
    for module in (keras.saving, keras.models):
        monkeypatch.setattr(module, "save_model", save := Recorder())
        model.save(tmp_path / "model.keras")
        canary.check(not save.was_called, f"Model.save() calls {module.__name__}.save_model, which is wrapped too")


@pytest.mark.parametrize(
    "weights_only, method, name", [(True, "save_weights", "m.weights.h5"), (False, "save", "m.keras")]
)
def test_model_checkpoint_saves_through_the_models_methods(model, monkeypatch, tmp_path, weights_only, method, name):
    callback = keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=weights_only)
    callback.set_model(model)
    monkeypatch.setattr(type(model), method, write := Recorder())
    callback.on_epoch_end(0, {})
    canary.check(write.was_called, f"ModelCheckpoint doesn't save through Model.{method}()")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "every_worker_writes_the_same_files")
