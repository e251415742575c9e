"""A training loop without fit."""

import keras
import tensorflow as tf
from common import FEATURES, layers

model = keras.Sequential(layers())
with tf.GradientTape() as tape:
    loss = tf.reduce_mean(model(tf.ones([4, FEATURES])))
keras.optimizers.SGD().apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
