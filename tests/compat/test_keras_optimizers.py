from __future__ import annotations

import inspect

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary, Recorder

pytestmark = pytest.mark.unit
canary = Canary("keras_optimizers")
TF_OPTIMIZER = "keras.src.backend.tensorflow.optimizer:TFOptimizer"
# Classes that have an `apply` of their own: the base class, LossScaleOptimizer (which the shim wraps as well) and
# MultiOptimizer, which applies through its parts.
OWN_APPLY = {"BaseOptimizer", "LossScaleOptimizer", "MultiOptimizer"}


def trained(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """A weight that starts at 1, after one step with the gradient 2."""
    weight = keras.Variable(1.0)
    optimizer.build([weight])
    optimizer.apply([tf.constant(2.0)], [weight])
    return weight


@pytest.mark.parametrize(
    "path, kept, replacement",
    [
        (f"{TF_OPTIMIZER}._all_reduce_sum_gradients", "_all_reduce_sum_gradients", "all_reduce_sum_gradients"),
        (f"{TF_OPTIMIZER}._overwrite_model_variables_with_average_value", "_overwrite", "overwrite_with_average"),
    ],
)
def test_the_replaced_methods_have_the_same_parameters(path, kept, replacement):
    canary.find(path)
    shim = canary.module()
    canary.same_parameters(getattr(shim, kept), getattr(shim, replacement))


def test_apply_has_the_wrappers_parameters():
    canary.find("keras.src.optimizers.base_optimizer:BaseOptimizer.apply")
    canary.find("keras:optimizers.LossScaleOptimizer.apply")
    shim = canary.module()
    for upstream in shim._apply.values():
        canary.same_parameters(upstream, shim._before(upstream))


def test_no_other_optimizer_has_an_apply_of_its_own():
    """One that the shim does not wrap would update with gradients that were not reduced."""
    base = canary.find("keras.src.optimizers.base_optimizer:BaseOptimizer")
    found = {
        cls.__name__ for cls in subclasses(base) if "apply" in vars(cls) and cls.__module__.startswith("keras.src")
    }
    canary.check(found <= OWN_APPLY, f"these have an apply() of their own: {found - OWN_APPLY}")


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def test_apply_gradients_calls_apply(monkeypatch):
    optimizer, apply = keras.optimizers.SGD(), Recorder()
    weight = keras.Variable(1.0)
    optimizer.build([weight])
    monkeypatch.setattr(optimizer, "apply", apply)
    optimizer.apply_gradients([(tf.constant(2.0), weight)])
    canary.check(apply.was_called, "apply_gradients() doesn't call apply()")


def test_the_all_reduce_comes_after_clipping(monkeypatch):
    """So it is too late for a global norm, and the shim reduces in `apply` and makes it pass on."""
    seen = []
    cls = canary.find(TF_OPTIMIZER)
    canary.find(f"{TF_OPTIMIZER}._all_reduce_sum_gradients")
    monkeypatch.setattr(cls, "_all_reduce_sum_gradients", lambda self, pairs: seen.extend(pairs) or pairs)
    trained(keras.optimizers.SGD(1.0, clipvalue=0.5))
    canary.check(seen, "the update doesn't go through TFOptimizer._all_reduce_sum_gradients")
    canary.check(float(seen[0][0]) == 0.5, "_all_reduce_sum_gradients doesn't see (clipped gradient, variable) pairs")


def test_the_loss_scale_applies_through_the_inner_optimizers_apply(monkeypatch):
    inner, apply = keras.optimizers.SGD(1.0), Recorder()
    outer = keras.optimizers.LossScaleOptimizer(inner)
    canary.has(outer, "inner_optimizer")
    outer.build([weight := keras.Variable(1.0)])
    monkeypatch.setattr(inner, "apply", apply)
    outer.apply([tf.constant(2.0)], [weight])
    canary.check(apply.was_called, "LossScaleOptimizer doesn't call its inner optimizer's apply()")


def test_averages_overwrite_through_the_replaced_method(monkeypatch):
    cls, overwrite = canary.find(TF_OPTIMIZER), Recorder()
    canary.find(f"{TF_OPTIMIZER}._overwrite_model_variables_with_average_value")
    monkeypatch.setattr(cls, "_overwrite_model_variables_with_average_value", overwrite)
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_overwrite_frequency=1)
    trained(optimizer)
    canary.check(overwrite.was_called, "averages overwrite weights through another method")
    averages = optimizer._model_variables_moving_average
    canary.check(len(averages) == len(overwrite.calls[0][0][0]), "averages are not one for each trainable variable")


def test_accumulators_are_made_in_the_replaced_build():
    """And nowhere else, so that an optimizer that is built without its setting has none."""
    shim = canary.module()
    canary.same_parameters(inspect.unwrap(shim._build), shim.build)
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2)
    with shim.without_accumulation(optimizer):
        optimizer.build([weight := keras.Variable(1.0)])
        optimizer.apply([tf.constant(2.0)], [weight])
    canary.check(not hasattr(optimizer, "_accumulated_gradients"), "accumulators are made somewhere else")
    canary.check(optimizer.gradient_accumulation_steps == 2, "the setting can't be put back")
    canary.check(int(optimizer._iterations) == 1, "`_iterations` doesn't count calls of apply()")


def test_iterations_is_a_property_that_can_be_replaced():
    shim = canary.module()
    canary.check(isinstance(shim._iterations, property), "BaseOptimizer.iterations is no property")


def test_variables_have_places():
    shim = canary.module()
    first, second = keras.Variable(1.0), keras.Variable(2.0)
    for optimizer in (keras.optimizers.SGD(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())):
        shim.build_if_needed(optimizer, [first, second])
        canary.check(shim.variable_index(optimizer, second) == 1, "_get_variable_index gives something else")
        known = [v.path for v in shim.trainable_variables_of(optimizer)]
        canary.check(known == [first.path, second.path], "_trainable_variables is something else")
        with pytest.raises(ValueError, match="Unknown variable"):
            shim.variable_index(optimizer, keras.Variable(3.0))


def test_optimizers_have_what_the_shim_reads():
    canary.has(
        keras.optimizers.SGD(use_ema=True),
        "_distribution_strategy",
        "gradient_accumulation_steps",
        "ema_overwrite_frequency",
        "use_ema",
    )


@pytest.mark.parametrize("fault", ["clipping_comes_before_the_reduce", "ema_overwrite_frequency_fails"])
def test_the_fault_is_still_there(stock_faults, fault):
    canary.still(stock_faults, fault)
