"""Which versions are installed, and which of them are known not to work."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tfdist.cluster.checks.finding import Finding

_SHOWN = ("tfdist", "tensorflow", "keras", "numpy")
_OLDEST_PYTHON = (3, 10)
# TensorFlow is published under several names; all of them are imported as `tensorflow`.
_TENSORFLOW_NAMES = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-rocm")


@dataclass(frozen=True)
class BadPair:
    """Two packages that don't work together.

    Args:
        package: The first.
        versions: Its bad versions, as in a requirement: "<2.16".
        other: The second.
        other_versions: Its bad versions.
        why: What goes wrong.
        fix: What to do.
    """

    package: str
    versions: str
    other: str
    other_versions: str
    why: str
    fix: str


KNOWN_BAD_PAIRS = (
    BadPair(
        "tensorflow", "<2.16", "keras", ">=3",
        "before 2.16 tf.keras is Keras 2, and Keras 3 models can't be trained under its strategies",
        "pip install 'tensorflow>=2.21,<2.22'",
    ),
    BadPair(
        "tensorflow", ">=2.16", "keras", "<3",
        "from 2.16 on tf.keras is Keras 3",
        "pip install 'keras>=3.12'",
    ),
    BadPair(
        "tensorflow", "<2.18", "numpy", ">=2",
        "it was compiled for NumPy 1 and crashes at import",
        "pip install 'tensorflow>=2.21,<2.22'",
    ),
    BadPair(
        "tensorflow", ">=2.21,<2.22", "tf-keras", "<2.21",
        "legacy tf_keras must have TensorFlow's own version",
        "pip install 'tf-keras>=2.21,<2.22'",
    ),
)  # fmt: skip


def check_versions() -> Iterator[Finding]:
    """Gives each version that counts, and a problem for each that can't work."""
    yield _python()
    installed = {name: _installed(name) for name in (*_SHOWN, "tf-keras")}
    for name in _SHOWN:
        yield _package(name, installed[name])
    for pair in KNOWN_BAD_PAIRS:
        if _applies(pair, installed):
            said = f"{installed[pair.package]} with {pair.other} {installed[pair.other]}: {pair.why}"
            yield Finding(pair.package, said, pair.fix)


def _python() -> Finding:
    version = platform.python_version()
    too_old = tuple(map(int, platform.python_version_tuple()[:2])) < _OLDEST_PYTHON
    return Finding("python", version, "Install Python 3.10 or newer." if too_old else "")


def _package(name: str, version: str | None) -> Finding:
    wanted = _requirement(name)
    if version is None:
        return Finding(name, "not installed", f"pip install '{name}{wanted}'")
    if not _is_in(version, wanted):
        return Finding(name, f"{version}, not tested: {wanted} is", f"pip install '{name}{wanted}'")
    return Finding(name, version)


def _installed(name: str) -> str | None:
    for candidate in _TENSORFLOW_NAMES if name == "tensorflow" else (name,):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def _requirement(name: str) -> str:
    """Returns what tfdist's own metadata ask for on this Python, such as "<2.22,>=2.21"."""
    try:
        required = metadata.requires("tfdist") or []
    except metadata.PackageNotFoundError:
        required = []
    for requirement in map(Requirement, required):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name.lower() == name:
            return str(requirement.specifier)
    return ""


def _applies(pair: BadPair, installed: Mapping[str, str | None]) -> bool:
    first, other = installed.get(pair.package), installed.get(pair.other)
    return bool(first and other and _is_in(first, pair.versions) and _is_in(other, pair.other_versions))


def _is_in(version: str, versions: str) -> bool:
    # Nightly builds are pre-releases, which specifiers leave out unless they are told not to.
    return SpecifierSet(versions).contains(version, prereleases=True)
