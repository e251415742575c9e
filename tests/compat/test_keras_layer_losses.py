from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("keras_layer_losses")


def test_the_list_is_an_attribute_of_the_instance():
    """The shim's property reads and writes it there outside of steps."""
    layer = keras.layers.Dense(1)
    canary.check("_losses" in vars(layer), "Layer._losses is not kept in the layer's own __dict__")
    canary.check(list(vars(layer)["_losses"]) == [], "Layer._losses doesn't start as an empty list")


def test_the_class_has_no_attribute_that_the_property_would_hide():
    attribute = vars(keras.layers.Layer).get("_losses")
    ours = getattr(attribute, "fget", None) is canary.module()._get_losses
    canary.check(attribute is None or ours, "Layer._losses is an attribute of the class, which the shim replaces")


def test_add_loss_extends_the_list_and_losses_reads_it():
    layer = keras.layers.Dense(1)
    layer.add_loss(tf.constant(3.0))
    canary.check([float(v) for v in layer._losses] == [3.0], "add_loss() doesn't extend Layer._losses")
    canary.check([float(v) for v in layer.losses] == [3.0], "Layer.losses doesn't come from Layer._losses")


def test_losses_are_cleared_in_place():
    """`_clear_losses` must empty the list that the property gives, and not set another."""
    layer = keras.layers.Dense(1)
    before = layer._losses
    layer.add_loss(tf.constant(3.0))
    canary.has(layer, "_clear_losses")
    layer._clear_losses()
    canary.check(layer._losses is before and len(before) == 0, "_clear_losses() doesn't empty Layer._losses in place")


def test_activity_regularizers_add_to_the_list():
    layer = keras.layers.Dense(1, activity_regularizer="l2")
    layer(tf.ones([2, 1]))
    canary.check(len(layer._losses) == 1, "activity regularizers don't add to Layer._losses")


def test_the_fault_is_still_there(stock_faults):
    canary.still(stock_faults, "replicas_share_the_list_of_losses")
