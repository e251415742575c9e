"""Default seeds: what a script draws without a seed of its own is the same in every run.

A script that sets seeds keeps them. One that makes a multi-worker strategy and sets none gets a seed from it
(`MultiWorkerMirroredStrategy`), the same on all workers; what it draws *before* differs from worker to worker, and must
do so here.
"""

from __future__ import annotations

import random

import keras
import numpy as np

from tfdist._compat import tensorflow as tf_compat
from tfdist.verify.spec import SEED


def set_default_seeds(*, of_worker: int = 0) -> None:
    """Seed all generators before the script runs.

    Args:
        of_worker: what is added to the seeds of `random` and NumPy.
    """
    keras.utils.set_random_seed(SEED)
    if of_worker:
        random.seed(SEED + of_worker)
        np.random.seed(SEED + of_worker)


def share_seed() -> None:
    """What making a multi-worker strategy does where the script has set no seed."""
    if tf_compat.global_seed() == SEED:
        keras.utils.set_random_seed(SEED)
