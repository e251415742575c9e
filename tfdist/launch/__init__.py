"""Starts all tasks of a job on this machine, watches them, and says which one failed first.

Plain Python: nothing here imports TensorFlow.
"""

from __future__ import annotations

from tfdist.errors import LaunchError
from tfdist.launch.command import module_command, script_command
from tfdist.launch.elastic.options import ElasticOptions
from tfdist.launch.options import LaunchOptions
from tfdist.launch.run import run

__all__ = ["ElasticOptions", "LaunchError", "LaunchOptions", "module_command", "run", "script_command"]
