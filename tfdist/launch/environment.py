"""The environment that each task gets."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tfdist.cluster import Cluster
from tfdist.cluster.mpi import without_rank

# Output must arrive line by line, not when a 8 kB buffer is full; a crash in C++ should say where.
_ALWAYS = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
# 2: only TensorFlow's errors. What it prints before it reads this is filtered, see output/noise.py.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


# What reads for the tasks leaves the accelerators to them.
_NO_ACCELERATORS = {"CUDA_VISIBLE_DEVICES": "-1"}


def task_environment(
    cluster: Cluster, env: Mapping[str, str], *, verbose: bool = False, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the whole environment of one task.

    Args:
        cluster: The cluster as the task sees it; becomes TF_CONFIG.
        env: What the user sets for all tasks; wins over everything but TF_CONFIG.
        verbose: Leave TensorFlow's log level as it is.
        extra: What the launcher tells all tasks.
    """
    return {**_inherited(verbose), **(extra or {}), **env, "TF_CONFIG": cluster.to_tf_config()}


def helper_environment(env: Mapping[str, str], *, verbose: bool = False) -> dict[str, str]:
    """Returns the whole environment of a process that works for the tasks and is none.

    Args:
        env, verbose: As in `task_environment`.
    """
    inherited = {**_inherited(verbose), **env, **_NO_ACCELERATORS}
    inherited.pop("TF_CONFIG", None)
    return inherited


def _inherited(verbose: bool) -> dict[str, str]:
    # A launcher that is an MPI rank itself, as under srun, has one rank for all of its tasks.
    return {**(_ALWAYS if verbose else _ALWAYS | _QUIET), **without_rank(os.environ)}
