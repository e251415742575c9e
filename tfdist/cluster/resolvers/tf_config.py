"""The cluster that the environment variable TF_CONFIG describes."""

from __future__ import annotations

import os

from tfdist.cluster import tf_config
from tfdist.cluster.spec import Cluster


class TFConfig:
    """Reads TF_CONFIG; an empty one counts as unset, as in TensorFlow."""

    name = tf_config.VARIABLE

    def resolve(self) -> Cluster | None:
        """Returns TF_CONFIG's cluster, or None when it isn't set."""
        text = os.environ.get(tf_config.VARIABLE, "").strip()
        return Cluster.from_tf_config(text) if text else None
