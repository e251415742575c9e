"""Carries out the training that a configuration describes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from tfdist.config.checking import check
from tfdist.config.objects import classes_of, find, make
from tfdist.config.schema import Part, TrainConfig
from tfdist.errors import ConfigError

# These metrics are no classes: `compile` chooses one by the shape of the targets.
_CHOSEN_BY_COMPILE = ("crossentropy", "accuracy")


# Options that may be a word in place of an object.
_WORDS = {"compression": ("bfloat16", "int8", "auto")}


def train(config: TrainConfig, folder: Path) -> dict[str, list[float]]:
    """Trains, and saves the model if the configuration says where.

    Args:
        config: What to train, on what, how.
        folder: Where paths of functions start from: that of the configuration file.

    Returns:
        Losses and metrics by epoch, as `fit` gives them.

    Raises:
        ConfigError: If a part of the configuration can't be made.
    """
    import keras

    _cut_cpu(config.logical_cpus)
    # Before all else: a strategy of several workers must be the first to use TensorFlow.
    strategy = _strategy(config, folder)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope() if strategy else contextlib.nullcontext():
        data = _data(config.data, "data", config, folder)
        validation = _data(config.validation_data, "validation_data", config, folder)
        model = make(config.model, "model", folder, {})
        model.compile(**_compile_arguments(config, folder))
    is_chief = getattr(strategy, "is_chief", True)
    history = model.fit(
        data,
        epochs=config.epochs,
        steps_per_epoch=config.steps_per_epoch,
        validation_data=validation,
        callbacks=_callbacks(config, folder),
        shuffle=False,  # of arrays in memory; the data shuffles itself
        verbose="auto" if is_chief else 0,
    )
    if config.save:
        model.save(config.save)  # on every worker: only the chief writes
        if is_chief:
            print(f"saved model: {config.save}")
    return history.history


def _cut_cpu(count: int) -> None:
    import tensorflow as tf

    if count > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, devices)


def _strategy(config: TrainConfig, folder: Path) -> Any:
    import tfdist

    if config.strategy is None:
        return None
    names = [name for name in tfdist.__all__ if name.endswith(("Strategy", "PipelineStages"))]
    known = {name: getattr(tfdist, name) for name in names}
    described = _with_outer_optimizer(with_objects(config.strategy, folder), folder)
    return make(described, "strategy", folder, known)


def with_objects(strategy: Part, folder: Path) -> Part:
    """Its options that are objects, which are described as other parts are."""
    import tensorflow as tf

    import tfdist.gradients as gradients
    import tfdist.updates as updates

    partitioners = tf.distribute.experimental.partitioners
    kinds = {
        "variable_partitioner": (partitioners, partitioners.Partitioner),
        "update": (updates, updates.Policy),
        "compression": (gradients, gradients.Compressor),
    }
    made = {}
    for name, (module, base) in kinds.items():
        described = strategy.options.get(name)
        if described is not None and described not in _WORDS.get(name, ()):
            key = f"strategy.options.{name}"
            part = Part(**check(described, Part, key, "in strategy.options"))
            made[name] = make(part, key, folder, classes_of(module, base))
    return _with_layouts(Part(strategy.name, {**strategy.options, **made}), folder)


def _with_layouts(strategy: Part, folder: Path) -> Part:
    """Its `layout_map`, if it is the name of a function of tfdist.layouts, or of yours; "auto" and maps as they are."""
    import tfdist.layouts as layouts

    key, described = "strategy.options.layout_map", strategy.options.get("layout_map")
    if isinstance(described, str) and described != "auto":
        described = {"name": described}
    if not isinstance(described, dict) or "name" not in described:
        return strategy
    ready_made = {name: getattr(layouts, name) for name in ("transformer", "attention", "mlp", "embedding")}
    part = Part(**check(described, Part, key, "in strategy.options"))
    return Part(strategy.name, {**strategy.options, "layout_map": make(part, key, folder, ready_made)})


def _with_outer_optimizer(strategy: Part, folder: Path) -> Part:
    """Its `outer_optimizer`, described as `optimizer` is, as a function: it is made after the strategy."""
    import keras

    if "outer_optimizer" not in strategy.options:
        return strategy
    key, described = "strategy.options.outer_optimizer", strategy.options["outer_optimizer"]
    whole = {"name": described} if isinstance(described, str) else described
    part = Part(**check(whole, Part, key, "in strategy.options"))
    optimizers = classes_of(keras.optimizers, keras.optimizers.Optimizer)
    find(part.name, key, folder, optimizers)
    return Part(strategy.name, {**strategy.options, "outer_optimizer": lambda: make(part, key, folder, optimizers)})


def _data(part: Part | None, key: str, config: TrainConfig, folder: Path) -> Any:
    return part and make(part, key, folder, {}, batch_size=config.batch_size)


def _compile_arguments(config: TrainConfig, folder: Path) -> dict[str, Any]:
    import keras

    optimizers = classes_of(keras.optimizers, keras.optimizers.Optimizer)
    losses = classes_of(keras.losses, keras.losses.Loss)
    losses |= {"mse": keras.losses.MeanSquaredError, "mae": keras.losses.MeanAbsoluteError}
    return {
        "optimizer": make(config.optimizer, "optimizer", folder, optimizers),
        "loss": make(config.loss, "loss", folder, losses),
        "metrics": [_metric(part, f"metrics[{index}]", folder) for index, part in enumerate(config.metrics)],
    }


def _metric(part: Part, key: str, folder: Path) -> Any:
    import keras

    if part.name in _CHOSEN_BY_COMPILE and not part.options:
        return part.name
    known = classes_of(keras.metrics, keras.metrics.Metric)
    return make(part, key, folder, known | dict.fromkeys(_CHOSEN_BY_COMPILE, keras.metrics.Metric))


def _callbacks(config: TrainConfig, folder: Path) -> list[Any]:
    import keras

    known = classes_of(keras.callbacks, keras.callbacks.Callback)
    made = [make(part, f"callbacks[{index}]", folder, known) for index, part in enumerate(config.callbacks)]
    for index, callback in enumerate(made):
        if not isinstance(callback, keras.callbacks.Callback):
            raise ConfigError(
                f"callbacks[{index}] must make a keras.callbacks.Callback. Received: "
                f"{config.callbacks[index].name!r}, which makes {type(callback).__name__}. "
                "Correct the name."
            )
    return made
