"""Reading by processes of a tf.data service."""
