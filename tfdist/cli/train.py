"""Trains what a configuration file describes.

    tfdist train configs/quickstart.yaml
    tfdist train configs/quickstart.yaml epochs=3 optimizer=sgd optimizer.options.momentum=0.9
    tfdist launch --workers=2 -m tfdist train configs/multi_worker_mirrored.yaml

key=value replaces what the file says. With launch.workers above 1 it starts that many worker
processes itself, unless TF_CONFIG is set or mpiexec has started it: then a launcher or a scheduler did.

Keys: model, data, validation_data, strategy, optimizer, loss, metrics, callbacks, epochs,
steps_per_epoch, batch_size, seed, logical_cpus, save, launch.workers, launch.ps, launch.mpi.
Each of the first eight is a name, or {name: ..., options: {...}}. Functions are
package.module:function, or path/file.py:function from the configuration file's folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from tfdist import config as configuration
from tfdist.cli.flags import UsageError
from tfdist.cluster.mpi import rank_of_process
from tfdist.launch import LaunchOptions, module_command
from tfdist.launch import run as launch

USAGE = "tfdist train configs/NAME.yaml [key=value ...]"


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code.

    Raises:
        UsageError: If no file is given.
        ConfigError: If the configuration is wrong.
    """
    path, overrides = _parse(argv)
    config = configuration.load(path, overrides)
    if config.launch.starts_processes and not _is_started():
        command = module_command("tfdist", ["train", *argv])
        return launch(command, _launch_options(config.launch))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up messages
    configuration.train(config, Path(path).parent)
    return 0


def _is_started() -> bool:
    rank = rank_of_process()
    return "TF_CONFIG" in os.environ or (rank is not None and rank.count > 1)


def _launch_options(asked: configuration.Launch) -> LaunchOptions:
    return LaunchOptions(workers=asked.workers, ps=asked.ps, mpi=asked.mpi)


def _parse(argv: list[str]) -> tuple[str, list[str]]:
    if not argv:
        raise UsageError("A configuration file must be given. Write: " + USAGE)
    path, *overrides = argv
    if path.startswith("-"):
        raise UsageError(f"Unknown option {path}. This command takes a file and key=value.")
    if "=" in path and not Path(path).exists():
        raise UsageError(f"The file comes before key=value. Received: {path!r}. Write: " + USAGE)
    return path, overrides
