from __future__ import annotations

import keras
import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_log_readers")


class Reader(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        """Looks at them."""


class OldReader(keras.callbacks.Callback):
    def on_batch_end(self, batch, logs=None):
        """Looks at them."""


class Counter(Reader):
    reads_batch_logs = False


def test_keras_can_tell_methods_that_nobody_has_overridden():
    is_default = canary.find("keras.src.utils:is_default")
    canary.check(is_default(keras.callbacks.Callback().on_train_batch_end), "Callback's own methods are no defaults")
    canary.check(not is_default(Reader().on_train_batch_end), "overridden methods are defaults")


@pytest.mark.parametrize(
    ("callbacks", "verbose", "reads"),
    [
        ([], 0, False),
        ([], 2, False),
        ([], 1, True),
        ([], "auto", True),
        ([keras.callbacks.History(), keras.callbacks.EarlyStopping(), Counter()], 0, False),
        ([keras.callbacks.BackupAndRestore("x", save_freq=3)], 2, False),
        ([Reader()], 0, True),
        ([OldReader()], 0, True),
        ([keras.callbacks.TerminateOnNaN()], 0, True),
        ([keras.callbacks.LambdaCallback(on_train_batch_end=print)], 0, True),
        ([keras.callbacks.LambdaCallback(on_epoch_end=print)], 0, False),
        (keras.callbacks.CallbackList([], add_progbar=True, verbose=1, epochs=1, steps=1).callbacks, 0, True),
        (keras.callbacks.CallbackList([], add_progbar=True, verbose=2, epochs=1, steps=1).callbacks, 0, False),
    ],
)
def test_who_reads_logs_of_batches(callbacks, verbose, reads):
    assert canary.module().reads_batch_logs(callbacks, verbose) is reads
