"""The only room that touches private TensorFlow and Keras API.

One file a shim. Each says what upstream does, the versions in which it was seen, and when it can go; each has a
canary test in tests/compat/ that names the upstream change that broke it.

Class-level shims ask `hooks.active_strategy()` or `hooks.current_step()` first and fall through to upstream's own
code when the answer is None, so models that are not under a tfdist strategy never notice them.
"""

from __future__ import annotations

_installed = False


def install() -> None:
    """Patch Keras once; called when a tfdist strategy is made."""
    global _installed
    if _installed:
        return
    from tfdist._compat import (
        keras_activity_regularizers,
        keras_adafactor,
        keras_batch_normalization,
        keras_callbacks,
        keras_layer_calls,
        keras_layer_losses,
        keras_losses,
        keras_metrics,
        keras_operations,
        keras_optimizer_files,
        keras_optimizers,
        keras_random,
        keras_saving,
        keras_seeds,
        keras_sparse_updates,
        keras_split_classes,
        keras_trainer,
        keras_variable_creation,
        keras_variables,
        keras_worker_variables,
        tensorflow_bfloat16,
        tensorflow_parameter_server,
        tensorflow_sharded_variables,
        tensorflow_worker_tables,
    )

    for shim in (
        keras_activity_regularizers,
        keras_adafactor,
        keras_batch_normalization,
        keras_layer_calls,
        keras_layer_losses,
        keras_losses,
        keras_metrics,
        keras_operations,
        keras_optimizer_files,
        keras_optimizers,
        keras_random,
        keras_seeds,
        keras_sparse_updates,
        keras_split_classes,
        keras_trainer,
        keras_variables,
        keras_worker_variables,
        keras_saving,
        keras_callbacks,
        tensorflow_bfloat16,
        tensorflow_parameter_server,
        tensorflow_sharded_variables,
        tensorflow_worker_tables,
        keras_variable_creation,  # around that of parameter servers
    ):
        shim.install()
    _installed = True
