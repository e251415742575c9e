"""A strategy that has no equal on one device."""

import tensorflow as tf

tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
