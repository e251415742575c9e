from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_optimizer_files")


def test_the_replaced_methods_have_the_same_parameters():
    canary.find("keras.src.optimizers.base_optimizer:BaseOptimizer.save_own_variables")
    canary.find("keras.src.optimizers.base_optimizer:BaseOptimizer.load_own_variables")
    shim = canary.module()
    canary.same_parameters(shim._save, shim.save_own_variables)
    canary.same_parameters(shim._load, shim.load_own_variables)


@pytest.mark.parametrize("use_ema", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_layout_is_upstreams(use_ema, wrapped):
    """What tfdist writes for an optimizer without accumulators has upstream's places for them."""
    optimizers = canary.find("tfdist._compat.keras_optimizers:_counting_updates"), []
    for counted in (False, True):
        optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2, use_ema=use_ema)
        outer = keras.optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer
        if counted:
            optimizers[0].update({optimizer, outer})
            with canary.find("tfdist._compat.keras_optimizers:without_accumulation")(outer):
                outer.build([keras.Variable(np.ones((2, 3))), keras.Variable(np.ones(4))])
        else:
            outer.build([keras.Variable(np.ones((2, 3))), keras.Variable(np.ones(4))])
        optimizers[1].append(outer)
    upstream, ours = optimizers[1]
    layout = [tuple(entry.shape) for entry in canary.module()._upstream_layout(ours)]
    expected = [tuple(variable.shape) for variable in upstream.variables]
    canary.check(layout == expected, f"an optimizer's variables come in another order, {expected} not {layout}")


def test_iterations_count_calls_of_apply():
    """Micro-batches, which is what the file must say."""
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    optimizer.build([weight := keras.Variable(1.0)])
    for _ in range(3):
        optimizer.apply([tf.constant(1.0)], [weight])
    canary.check(int(optimizer._iterations) == 3, "_iterations counts something else")
    canary.check(optimizer.variables[0] is optimizer._iterations, "_iterations isn't the first variable")
