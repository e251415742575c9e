"""Keras' trainer asks the strategy for its step functions, and for what it needs before the first step.

Upstream: `fit` under MultiWorkerMirroredStrategy fails in `_maybe_symbolic_build` (keras issue 20585), which also
takes a batch from generators that can't be rewound; `steps_per_execution > 1` fails; logs are averages of replicas'
results; `train_on_batch` means the global batch under one strategy and the worker's own under another.
Here: models under a tfdist strategy are built from the data's specification where that is enough, and run the
strategy's own functions. Seen in Keras 3.15.1. Can go when Keras has a hook for both.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer, TFEpochIterator
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter
from keras.src.trainers.epoch_iterator import EpochIterator
from keras.src.trainers.trainer import Trainer

from tfdist._compat import hooks
from tfdist._compat.keras_log_readers import reads_batch_logs
from tfdist._compat.keras_optimizers import accumulation_of
from tfdist.log import logger

_compile = Trainer.compile
_upstream = {
    name: getattr(TensorFlowTrainer, name)
    for name in (
        "fit",
        "predict",
        "make_train_function",
        "make_test_function",
        "make_predict_function",
        "predict_on_batch",
        "_maybe_symbolic_build",
    )
}
_interrupted_warning = EpochIterator._interrupted_warning
_tf_sync = TFEpochIterator.tf_sync
_fit_signature = inspect.signature(_upstream["fit"])


def install() -> None:
    """Replace the trainer's methods."""
    # On the base class: `compile_from_config` takes any other `compile` for one that the user has overridden.
    Trainer.compile = compile_in_scope
    TensorFlowTrainer.fit = fit
    TensorFlowTrainer.predict = predict
    TensorFlowTrainer._maybe_symbolic_build = maybe_symbolic_build
    TensorFlowTrainer.predict_on_batch = predict_on_batch
    EpochIterator._interrupted_warning = interrupted_warning
    TFEpochIterator.tf_sync = tf_sync
    for kind in ("train", "test", "predict"):
        setattr(TensorFlowTrainer, f"make_{kind}_function", _make_function(kind))


@functools.wraps(_compile)
def compile_in_scope(self: Any, *args: Any, **kwargs: Any) -> None:
    """Upstream's; optimizers and metrics given by name are made in the model's scope, wherever it is called."""
    strategy = hooks.model_strategy(self)
    if strategy is None:
        _compile(self, *args, **kwargs)
        return
    with strategy.scope():
        _compile(self, *args, **kwargs)
        strategy.place_model(self)
        if self.optimizer is not None:
            strategy.prepare_optimizer(self.optimizer)


@functools.wraps(_upstream["fit"])
def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's fit; refuses a model that is not the surrounding strategy's own."""
    current, own = hooks.active_strategy(), hooks.model_strategy(self)
    if current is not None and current is not own:
        raise ValueError(
            f"Model {self.name!r} was made outside of the strategy's scope, so the strategy could not train it. "
            f"Expected: a model made under `with strategy.scope():` of this {type(current).__name__}. "
            f"Received: a model made under {_strategy_name(self)}. Build and compile the model in the scope."
        )
    arguments = _fit_signature.bind(self, *args, **kwargs)
    given = arguments.arguments.get("callbacks")
    participants = [own or accumulation_of(getattr(self, "optimizer", None)), *_last_callbacks(given)]
    participants = [one for one in participants if one is not None]
    if not participants:
        return _upstream["fit"](self, *args, **kwargs)
    data, steps = arguments.arguments.get("x"), arguments.arguments.get("steps_per_epoch")
    ours = {type(one): one for part in reversed(participants) for one in part.fit_callbacks(data, steps)}
    callbacks = _with_last(_with_callbacks(self, [*ours.values()], given), given)
    arguments.arguments["callbacks"] = callbacks
    # A list that the user has made has the progress bar in it.
    verbose = 0 if isinstance(callbacks, keras.callbacks.CallbackList) else arguments.arguments.get("verbose", "auto")
    hooks.note_log_readers(self, reads_batch_logs(_listed(callbacks), verbose))
    hooks.begin_fit(self)
    try:
        for accumulation in hooks.accumulations_of(self):
            accumulation.refresh()
        with contextlib.nullcontext() if own is None else own.around_fit():
            return _upstream["fit"](*arguments.args, **arguments.kwargs)
    finally:
        hooks.end_fit(self)
        # In the order in which what they have put in place is taken away again.
        for callback in reversed(_last_callbacks(given)):
            callback.after_fit()


def _with_callbacks(model: Any, ours: list[Any], callbacks: Any) -> Any:
    """The user's callbacks after tfdist's own."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [*ours, callbacks] if callbacks else ours
    present = {type(callback) for callback in callbacks.callbacks}
    for callback in reversed([one for one in ours if type(one) not in present]):
        callback.set_model(model)
        callback.set_params(callbacks.params)
        callbacks.callbacks.insert(0, callback)
    return callbacks


def _listed(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return keras.tree.flatten(callbacks) if callbacks else []


def _last_callbacks(callbacks: Any) -> list[Any]:
    return [one for one in _listed(callbacks) if isinstance(one, hooks.LastCallback)]


def _with_last(callbacks: Any, given: Any) -> Any:
    """Callbacks with those at the end that are to see what all others have done."""
    last = _last_callbacks(given)
    if not last:
        return callbacks
    rest = [one for one in _listed(callbacks) if one not in last]
    for one in last:
        one.others = tuple(other for other in _listed(given) if other not in last)
    if not any(isinstance(one, keras.callbacks.History) for one in rest):
        rest.append(keras.callbacks.History())
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [*rest, *last]
    callbacks.callbacks[:] = [*rest, *last]
    return callbacks


@functools.wraps(_upstream["predict"])
def predict(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Upstream's; all workers must be about to do it."""
    strategy = hooks.model_strategy(self)
    if strategy is not None:
        strategy.check_before_predict(self)
    return _upstream["predict"](self, *args, **kwargs)


@functools.wraps(_interrupted_warning)
def interrupted_warning(self: Any) -> None:
    """Upstream's, unless the data has ended early because the epoch began in the middle, after a restart."""
    if not hooks.is_short_epoch():
        _interrupted_warning(self)


@functools.wraps(_tf_sync)
def tf_sync(self: Any) -> None:
    """Upstream's; steps that are still under way end first."""
    strategy = hooks.hooks_of(self._distribute_strategy)
    if strategy is not None:
        strategy.end_steps()
    _tf_sync(self)


def _strategy_name(model: Any) -> str:
    strategy = getattr(model, "_distribute_strategy", None)
    return "no strategy" if strategy is None else f"another {type(strategy).__name__}"


def _make_function(kind: str) -> Callable[..., Any]:
    upstream = _upstream[f"make_{kind}_function"]
    attribute = f"{kind}_function"

    @functools.wraps(upstream)
    def make_function(self: Any, force: bool = False) -> Any:
        strategy = hooks.model_strategy(self)
        if strategy is None:
            accumulation = accumulation_of(getattr(self, "optimizer", None))
            if kind == "train" and accumulation is not None:
                force = _count_rows(self, accumulation) or force
            return upstream(self, force)
        made = getattr(self, attribute)
        if made is None or force or not getattr(made, "is_current", True):
            setattr(self, attribute, strategy.keras_function(self, kind))
        return getattr(self, attribute)

    return make_function


def _count_rows(model: Any, accumulation: Any) -> bool:
    """Let the accumulation see each micro-batch of a model without a tfdist strategy; True the first time."""
    if "train_step" in model.__dict__:
        return False
    model.__dict__["train_step"] = accumulation.counting_rows(model.train_step)
    return True


@functools.wraps(_upstream["predict_on_batch"])
def predict_on_batch(self: Any, x: Any) -> Any:
    """Upstream's; the batch is the global batch, of which each replica takes its rows."""
    strategy = hooks.model_strategy(self)
    if strategy is not None:
        x = strategy.split_batch(x)
    return _upstream["predict_on_batch"](self, x)


def maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
    """Build model, metrics and optimizer in the scope, then let the strategy refuse what can't work."""
    strategy = hooks.model_strategy(self)
    # The first call in `fit` is for the training data; later ones are for validation.
    training = iterator is not None and hooks.is_first_of_fit(self, "input")
    if training:
        hooks.note_epoch_iterator(self, iterator)
    if strategy is None:
        return _upstream["_maybe_symbolic_build"](self, iterator=iterator, data_batch=data_batch)
    if iterator is not None:
        strategy.note_epoch_length(iterator._distributed_dataset, iterator.steps_per_epoch)
    strategy.check_before_build(self, None if iterator is None else summarize(iterator, training))
    with strategy.scope():
        build_if_needed(self, iterator, data_batch)
        self._post_build()
    return None


def build_if_needed(model: Any, iterator: Any = None, data_batch: Any = None) -> None:
    """Make the variables of model, metrics and optimizer, as far as that can be done before a step."""
    if _is_unbuilt(model):
        _build(model, _example(iterator) if data_batch is None else data_batch)
    strategy = hooks.model_strategy(model)
    if strategy is not None:
        strategy.place_model(model)
    if model.optimizer is not None and not model.optimizer.built and _has_all_variables(model):
        model.optimizer.build(model.trainable_variables)


def _has_all_variables(model: Any) -> bool:
    return all(layer.built for layer in flatten_layers(model) if layer is not model)


def _is_unbuilt(model: Any) -> bool:
    parts = [part for part in (model._compile_metrics, model._compile_loss) if part is not None]
    return not all(part.built for part in [*parts, *flatten_layers(model)])


def _build(model: Any, example: Any) -> None:
    """Make all variables; as upstream's `_symbolic_build`, which drops that a tensor is ragged or sparse.

    On one device nothing is called before the first step, so what can't be called like this is left for it.
    """
    if type(model).call is keras.Model.call:
        return  # the train step does all
    try:
        _call_symbolically(model, *_unpack(example))
    except Exception as error:
        logger.warning("model %r is built by its first step, since calling it before failed: %s", model.name, error)


def _unpack(example: Any) -> tuple[Any, Any, Any]:
    return keras.utils.unpack_x_y_sample_weight(tf.nest.map_structure(_symbolic, example))


def _call_symbolically(model: Any, x: Any, y: Any, sample_weight: Any) -> None:
    y_pred = backend.compute_output_spec(model, x, training=False)
    metrics, loss = model._compile_metrics, model._compile_loss
    if metrics is not None and not metrics.built:
        backend.compute_output_spec(model.compute_metrics, x, y, y_pred, sample_weight=sample_weight)
    if loss is not None and not loss.built:
        backend.compute_output_spec(model._compute_loss, x, y, y_pred, sample_weight=sample_weight, training=False)


def _example(iterator: Any) -> Any:
    """Something with the shapes and dtypes of a batch: the specification if it will do, else a batch."""
    dataset = iterator._distributed_dataset
    spec = tf.nest.map_structure(_one_replica, dataset.element_spec)
    if all(_is_enough(leaf) for leaf in tf.nest.flatten(spec)):
        return spec
    if isinstance(iterator.data_adapter, GeneratorDataAdapter):
        # Taking a batch from the dataset would take it from the generator, for good.
        return iterator.data_adapter._first_batches[0]
    if isinstance(getattr(dataset, "dataset", None), tf.data.Dataset):
        return next(iter(dataset.dataset))  # what the chief feeds
    strategy = iterator._distribute_strategy
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], next(iter(dataset)))


def _one_replica(spec: Any) -> Any:
    return getattr(spec, "_value_specs", (spec,))[0]


def _describe(spec: Any) -> str:
    """Type and shape of a row; how many rows a replica has may differ."""
    spec = _one_replica(spec)
    shape = getattr(spec, "shape", None)
    if shape is None or shape.rank is None:
        return str(spec)
    return f"{type(spec).__name__.removesuffix('Spec')} of {spec.dtype.name}, row shape {shape[1:]}"


def _is_enough(spec: Any) -> bool:
    if isinstance(spec, tf.OptionalSpec):
        return True
    return isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None and None not in spec.shape[1:]


def _symbolic(value: Any) -> Any:
    """A KerasTensor for what is dense; what is ragged or sparse stands for itself."""
    if value is None or isinstance(value, (tf.OptionalSpec, tf.experimental.Optional)):
        return None
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        return value
    if not hasattr(value, "shape"):
        value = tf.convert_to_tensor(value)
    return keras.KerasTensor(tuple(value.shape), keras.backend.standardize_dtype(value.dtype))


def summarize(iterator: Any, training: bool) -> hooks.DataSummary:
    """What Keras' epoch iterator knows of its data."""
    adapter = iterator.data_adapter
    is_array = isinstance(adapter, ArrayDataAdapter)
    return hooks.DataSummary(
        batch_size=adapter.batch_size if is_array else None,
        num_rows=adapter._num_samples if is_array else None,
        num_batches=iterator.num_batches,
        element_spec=str(tf.nest.map_structure(_describe, iterator._distributed_dataset.element_spec)),
        training=training,
    )


def flatten_layers(model: Any) -> list[Any]:
    """The model and all layers inside it, however deep."""
    return list(model._flatten_layers())
