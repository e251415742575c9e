from __future__ import annotations

import os

import keras
import pytest

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_callbacks")


@pytest.fixture
def model() -> keras.Model:
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    "path, kept, replacement",
    [
        ("CSVLogger.on_train_begin", "_csv_begin", "csv_begin"),
        ("TensorBoard.set_model", "_board_set_model", "board_set_model"),
    ],
)
def test_the_replaced_methods_take_what_the_shim_passes(path, kept, replacement):
    canary.find(f"keras:callbacks.{path}")
    canary.takes(getattr(canary.module(), kept), object(), None)


def test_the_csv_logger_opens_its_file_name_when_training_begins(tmp_path):
    """So the shim can point it to nowhere before that."""
    callback = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    canary.has(callback, "filename")
    callback.filename = str(tmp_path / "other.csv")
    callback.on_train_begin()
    callback.on_train_end()
    canary.check(os.listdir(tmp_path) == ["other.csv"], "CSVLogger doesn't open `filename` in on_train_begin()")


def test_tensorboard_takes_its_directory_when_it_is_given_the_model(model, tmp_path):
    """So the shim can point it to a directory of its own before that."""
    callback = keras.callbacks.TensorBoard(tmp_path / "first")
    canary.has(callback, "log_dir")
    callback.log_dir = str(tmp_path / "second")
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, {"loss": 1.0})
    callback.on_train_end()
    canary.check(os.listdir(tmp_path) == ["second"], "TensorBoard doesn't take `log_dir` in set_model()")


def test_the_backup_writes_in_the_replaced_method_only(model, monkeypatch, tmp_path):
    canary.find("keras:callbacks.BackupAndRestore._save_model")
    monkeypatch.setattr(keras.callbacks.BackupAndRestore, "_save_model", save := Recorder())
    callback = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=1)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_train_batch_end(0)
    canary.check(save.was_called, "BackupAndRestore doesn't save through _save_model()")
    canary.check(os.listdir(tmp_path) == [], "BackupAndRestore writes elsewhere than in _save_model()")


def test_the_backup_is_deleted_when_training_ends(model, tmp_path):
    (tmp_path / "backup").mkdir()
    callback = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    callback.set_model(model)
    callback.on_train_end()
    canary.check(os.listdir(tmp_path) == [], "BackupAndRestore doesn't delete its files in on_train_end()")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "every_worker_writes_the_same_files")


def test_the_backup_keeps_its_files_and_its_epoch_in_attributes(model, tmp_path):
    """The shim points them to new files before a save, and sets the epoch after a restart."""
    callback = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=1)
    callback.set_model(model)
    canary.has(callback, "_prev_weights_path", "_prev_training_metadata_path", "double_checkpoint", "_current_epoch")
    canary.check(callback._weights_path.endswith(".weights.h5"), f"weights are in {callback._weights_path}")
    callback._weights_path = str(tmp_path / "other.weights.h5")
    callback._training_metadata_path = str(tmp_path / "other.json")
    callback._current_epoch = 3
    canary.module()._save_backup(callback)
    canary.check((tmp_path / "other.weights.h5").exists(), "_save_model() doesn't write to _weights_path")
    canary.check('"epoch": 3' in (tmp_path / "other.json").read_text(), "_save_model() doesn't write _current_epoch")
    canary.module()._load_backup(callback)
    canary.check(model._initial_epoch == 3, "_load_model() doesn't set the model's _initial_epoch")
