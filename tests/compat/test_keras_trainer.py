from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_trainer")
TRAINER = "keras.src.backend.tensorflow.trainer:TensorFlowTrainer"
ADAPTERS = "keras.src.trainers.data_adapters"
KINDS = ("train", "test", "predict")


@pytest.fixture
def model() -> keras.Model:
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def upstream(name: str):
    canary.find(f"{TRAINER}.{name}")
    return canary.module()._upstream[name]


def epoch_iterator(*args, **kwargs):
    return canary.find("keras.src.backend.tensorflow.trainer:TFEpochIterator")(
        tf.distribute.get_strategy(), *args, **kwargs
    )


@pytest.mark.parametrize("kind", KINDS)
def test_functions_are_made_with_force(kind):
    canary.takes(upstream(f"make_{kind}_function"), object(), False)


def test_fit_and_the_batch_methods_take_what_the_shim_passes():
    canary.takes(upstream("fit"), object(), x=1, y=2, epochs=3)
    canary.takes(upstream("predict_on_batch"), object(), 1)
    canary.same_parameters(upstream("_maybe_symbolic_build"), canary.module().maybe_symbolic_build)


@pytest.mark.parametrize(
    "method, kind",
    [("fit", "train"), ("train_on_batch", "train"), ("evaluate", "test"), ("test_on_batch", "test")],
)
def test_training_and_evaluation_build_and_run_what_the_shim_replaces(model, monkeypatch, method, kind):
    cls = canary.find(TRAINER)
    run = Recorder({"loss": 0.0})
    monkeypatch.setattr(cls, "_maybe_symbolic_build", build := Recorder())
    monkeypatch.setattr(cls, f"make_{kind}_function", lambda self, force=False: setattr(self, f"{kind}_function", run))
    rows = np.ones([2, 1], "float32")
    getattr(model, method)(rows, rows, **({"verbose": 0} if method in ("fit", "evaluate") else {}))
    canary.check(build.was_called, f"{method}() doesn't call _maybe_symbolic_build()")
    canary.check(run.was_called, f"{method}() doesn't run what make_{kind}_function() put into {kind}_function")


def test_predict_runs_what_the_shim_replaces(model, monkeypatch):
    """It is given a list of batches."""
    run = Recorder(tf.zeros([2, 1]))
    monkeypatch.setattr(
        canary.find(TRAINER), "make_predict_function", lambda self, force=False: setattr(self, "predict_function", run)
    )
    model.predict(np.ones([2, 1], "float32"), verbose=0)
    canary.check(run.was_called, "predict() doesn't run what make_predict_function() put into predict_function")
    batches = run.calls[0][0][0]
    canary.check(isinstance(batches, list) and len(batches) == 1, "predict_function gets no list of one batch")


def test_other_builds_of_the_iterator_and_of_a_batch_are_told_apart(model, monkeypatch):
    monkeypatch.setattr(canary.find(TRAINER), "_maybe_symbolic_build", build := Recorder())
    rows = np.ones([2, 1], "float32")
    model.fit(rows, rows, verbose=0)
    model.train_on_batch(rows, rows)
    names = [sorted(kwargs) for _, kwargs in build.calls]
    canary.check(names == [["iterator"], ["data_batch"]], f"_maybe_symbolic_build() is called with {names}")


def test_saved_models_compile_where_the_class_has_the_trainers_compile(model, monkeypatch):
    """`compile_from_config` takes another `compile` for the user's own and skips it, so the shim replaces Trainer's."""
    trainer = canary.find("keras.src.trainers.trainer:Trainer")
    canary.check(type(model).compile is trainer.compile, "Sequential has a compile() of its own")
    monkeypatch.setattr(trainer, "compile", lambda self, *args, **kwargs: compiled(self, *args, **kwargs))
    compiled = Recorder()
    model.compile_from_config(model.get_compile_config() or {"optimizer": "sgd", "loss": "mse"})
    canary.check(compiled.was_called, "compile_from_config() doesn't compare with Trainer.compile at the call")


def test_models_know_their_strategy(model):
    canary.check(model._distribute_strategy is None, "a model made under no strategy has one")
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        made_in_scope = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    canary.check(made_in_scope._distribute_strategy is strategy, "Model._distribute_strategy is not its scope's")


def test_models_have_what_the_shim_reads(model):
    canary.has(
        model,
        *("_compile_metrics", "_compile_loss", "_compute_loss", "compute_metrics", "_post_build", "_flatten_layers"),
        *("steps_per_execution", "unrolled_steps_per_execution", "run_eagerly", "jit_compile", "get_metrics_result"),
        *("train_function", "test_function", "predict_function", "metrics_variables"),
    )
    canary.takes(model._compute_loss, 1, 2, 3, sample_weight=4, training=False)
    canary.takes(model.compute_metrics, 1, 2, 3, sample_weight=4)
    canary.takes(canary.find("keras.src:backend.compute_output_spec"), model, 1, training=False)


def test_flatten_layers_goes_all_the_way_down(model):
    outer = keras.Sequential([keras.Input([1]), model])
    found = canary.module().flatten_layers(outer)
    canary.check(found[0] is outer and model.layers[0] in found, "_flatten_layers() is not the model and all inside it")


def test_epoch_iterators_have_what_the_shim_reads():
    iterator = epoch_iterator(np.ones([5, 1]), batch_size=2)
    canary.has(iterator, "data_adapter", "num_batches", "_distributed_dataset", "_distribute_strategy")
    summary = canary.module().summarize(iterator, True)
    found = summary.batch_size, summary.num_rows, summary.num_batches
    canary.check(found == (2, 5, 3), f"5 rows in batches of 2 are (batch size, rows, batches) {found}")
    canary.find(f"{ADAPTERS}.array_data_adapter:ArrayDataAdapter")


def test_generators_keep_their_first_batch():
    """Building from the data set would take a batch from the generator, so the shim takes the adapter's."""
    adapter = canary.find(f"{ADAPTERS}.generator_data_adapter:GeneratorDataAdapter")
    iterator = epoch_iterator((np.full([2, 1], number),) for number in range(3))
    canary.check(isinstance(iterator.data_adapter, adapter), "generators are adapted by another class")
    canary.has(iterator.data_adapter, "_first_batches")
    first = iterator.data_adapter._first_batches[0]
    canary.check(np.all(first[0] == 0), "GeneratorDataAdapter._first_batches doesn't begin with the first batch")
    batches = [float(batch[0][0, 0]) for batch in iterator._distributed_dataset]
    canary.check(batches == [0.0, 1.0, 2.0], f"the data set of a generator of 0, 1, 2 gives {batches}")


@pytest.mark.parametrize(
    "fault",
    [
        "steps_per_execution_fails",
        "optimizers_by_name_are_made_outside_of_the_scope",
        "symbolic_build_takes_a_batch",
    ],
)
def test_the_fault_is_still_there(stock_faults, fault):
    canary.still(stock_faults, fault)


def test_an_epoch_iterator_warns_by_a_method_when_its_data_ends_early(monkeypatch):
    cls = canary.find("keras.src.trainers.epoch_iterator:EpochIterator")
    monkeypatch.setattr(cls, "_interrupted_warning", warned := Recorder())
    iterator = epoch_iterator(np.ones([4, 1]), batch_size=2)
    with iterator.catch_stop_iteration():
        raise StopIteration
    canary.check(warned.was_called, "catch_stop_iteration() doesn't call _interrupted_warning()")


def test_steps_that_are_under_way_are_waited_for_by_a_method(monkeypatch):
    """Once an epoch, behind its last step, unless the data has ended, which the strategy's own function notices."""
    cls = canary.find("keras.src.backend.tensorflow.trainer:TFEpochIterator")
    canary.same_parameters(canary.module()._tf_sync, canary.module().tf_sync)
    monkeypatch.setattr(cls, "tf_sync", sync := Recorder())
    iterator, calls = epoch_iterator(np.ones([4, 1]), batch_size=2), []
    with iterator.catch_stop_iteration():
        calls.append(len(sync.calls))
    canary.check((*calls, len(sync.calls)) == (0, 1), "catch_stop_iteration() doesn't end with one tf_sync()")
    canary.has(iterator, "_distribute_strategy")


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_fit_and_evaluate_wait_for_steps_once_an_epoch(model, monkeypatch, method):
    cls = canary.find("keras.src.backend.tensorflow.trainer:TFEpochIterator")
    monkeypatch.setattr(cls, "tf_sync", sync := Recorder())
    data = tf.data.Dataset.from_tensors((tf.ones([2, 1]), tf.ones([2, 1]))).repeat()
    options = {"steps_per_epoch": 3, "epochs": 2} if method == "fit" else {"steps": 3}
    getattr(model, method)(data, verbose=0, **options)
    expected = 2 if method == "fit" else 1
    canary.check(len(sync.calls) == expected, f"{method}() calls tf_sync() {len(sync.calls)} times, not {expected}")


def test_a_strategy_ends_its_steps_before_upstream_waits(monkeypatch):
    shim, order = canary.module(), []
    hooks = canary.find("tfdist._compat:hooks")
    strategy = type("Strategy", (hooks.KerasHooks,), {"end_steps": lambda self: order.append("steps")})()
    monkeypatch.setattr(shim, "_tf_sync", lambda iterator: order.append("upstream"))
    iterator = epoch_iterator(np.ones([4, 1]), batch_size=2)
    shim.tf_sync(iterator)
    assert order == ["upstream"], "under no strategy of tfdist's"
    iterator._distribute_strategy = strategy
    shim.tf_sync(iterator)
    assert order == ["upstream", "steps", "upstream"]
