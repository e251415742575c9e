"""What a contender needs, whether an interpreter has it, and what to do where it doesn't."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_PROBE_SECONDS = 120
_VERSIONS = """
import importlib.metadata, importlib.util, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    if importlib.util.find_spec(name):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "installed"
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Requirement:
    """A library, or something that a library must be able to do.

    Args:
        module: that must be there.
        remedy: what to do where it isn't.
        condition: Python that must give true in that interpreter.
    """

    module: str
    remedy: str
    condition: str = ""


_JAX = "pip install 'keras>=3.15' 'jax>=0.7' into an environment of its own, and --jax_python=PATH"
TENSORFLOW = Requirement("tensorflow", "pip install tensorflow")
LEGACY_KERAS = Requirement("tf_keras", "pip install 'tf-keras>=2.21'")
TORCH = Requirement("torch", "pip install torch into an environment of its own, and --torch_python=PATH")
JAX = Requirement("jax", _JAX)
KERAS_ON_JAX = Requirement("keras", _JAX)
ROOT_USER = Requirement("posix", "run it with sudo: network namespaces need root", "__import__('os').geteuid() == 0")
MPI = Requirement("mpi4py", "pip install mpi4py and an MPI, here or into another environment, and --mpi_python=PATH")
MNIST = Requirement(
    "os",
    "set TFDIST_DATA_DIR to a folder with mnist.npz",
    "(lambda os: os.path.exists(os.path.join(os.environ.get('TFDIST_DATA_DIR', '.'), 'mnist.npz')))(__import__('os'))",
)


def taken_by_strategy(argument: str) -> Requirement:
    """That tfdist's synchronous strategy has an argument of this name."""
    return Requirement(
        "tfdist",
        f"take a version of tfdist whose MultiWorkerMirroredStrategy has {argument}=",
        f"'{argument}' in __import__('inspect').signature(__import__('tfdist').MultiWorkerMirroredStrategy).parameters",
    )


@dataclass
class Pythons:
    """The interpreters of the contenders.

    Args:
        paths: by the name that `Contender.python` has; this one for names that aren't there.
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    _versions: dict[tuple[str, str], str] = field(default_factory=dict)
    _conditions: dict[tuple[str, str], bool] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """Of the interpreter."""
        return self.paths.get(name) or sys.executable

    def missing(self, name: str, needs: Sequence[Requirement]) -> str:
        """What an interpreter lacks, with the remedy; "" if nothing."""
        path, whose = self.path(name), f"--{name}_python" if name in self.paths else "this Python"
        for need in needs:
            version = self.versions(name, [need.module]).get(need.module)
            if version is None:
                return f"{need.module} is not installed for {whose}. Remedy: {need.remedy}"
            if need.condition and not self._holds(path, need.condition):
                return f"not available. Remedy: {need.remedy}"
        return ""

    def versions(self, name: str, modules: Sequence[str]) -> dict[str, str]:
        """Of those of the modules that are installed, and of Python."""
        path = self.path(name)
        asked = ["python", *modules]
        if any((path, module) not in self._versions for module in asked):
            found = json.loads(_output(path, _VERSIONS, *modules) or "{}")
            self._versions |= {(path, module): found.get(module, "") for module in asked}
        return {module: version for module in asked if (version := self._versions[path, module])}

    def _holds(self, path: str, condition: str) -> bool:
        if (path, condition) not in self._conditions:
            self._conditions[path, condition] = _output(path, f"print(bool({condition}))").strip() == "True"
        return self._conditions[path, condition]


def _output(path: str, code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [path, "-c", code, *arguments], capture_output=True, text=True, timeout=_PROBE_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
