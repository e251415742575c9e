"""Which versions are installed, and which of them are known not to work."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from tfdist.cluster.checks.finding import Finding

_SHOWN = ("tfdist", "tensorflow", "keras", "numpy")
_OLDEST_PYTHON = (3, 10)
# TensorFlow is published under several names; all of them are imported as `tensorflow`.
_TENSORFLOW_NAMES = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-rocm")

Version = tuple[int, ...]


@dataclass(frozen=True)
class BadPair:
    """Two packages that don't work together.

    Args:
        package: The first, in versions from `at_least` to below `below`.
        at_least: Its first bad version.
        below: Its first good version after that.
        other: The second, in versions from `other_at_least` to below `other_below`.
        other_at_least: Its first bad version.
        other_below: Its first good version after that.
        why: What goes wrong.
        fix: What to do.
    """

    package: str
    at_least: Version
    below: Version
    other: str
    other_at_least: Version
    other_below: Version
    why: str
    fix: str


_ANY = (10**6,)
KNOWN_BAD_PAIRS = (
    BadPair(
        "tensorflow", (0,), (2, 16), "keras", (3,), _ANY,
        "before 2.16 tf.keras is Keras 2, and Keras 3 models can't be trained under its strategies",
        "pip install 'tensorflow>=2.21,<2.22'",
    ),
    BadPair(
        "tensorflow", (2, 16), _ANY, "keras", (0,), (3,),
        "from 2.16 on tf.keras is Keras 3",
        "pip install 'keras>=3.15,<3.16'",
    ),
    BadPair(
        "tensorflow", (0,), (2, 18), "numpy", (2,), _ANY,
        "it was compiled for NumPy 1 and crashes at import",
        "pip install 'tensorflow>=2.21,<2.22'",
    ),
    BadPair(
        "tensorflow", (2, 21), (2, 22), "tf-keras", (0,), (2, 21),
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
    found = {name: _parse(version) for name, version in installed.items() if version}
    for pair in KNOWN_BAD_PAIRS:
        if _applies(pair, found):
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
    if not _satisfies(_parse(version), wanted):
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
    """Returns what tfdist's own metadata ask for, such as ">=2.21,<2.22"."""
    try:
        required = metadata.requires("tfdist") or []
    except metadata.PackageNotFoundError:
        required = []
    for line in required:
        match = re.match(r"([A-Za-z0-9._-]+)\s*([^;]*)", line)
        if match and match[1].lower() == name:
            return match[2].strip()
    return ""


def _satisfies(version: Version, wanted: str) -> bool:
    checks = {
        ">=": lambda bound: version >= bound,
        "<": lambda bound: version < bound,
    }
    return all(checks[sign](_parse(bound)) for sign, bound in re.findall(r"(>=|<)([\d.]+)", wanted))


def _applies(pair: BadPair, found: dict[str, Version]) -> bool:
    first, other = found.get(pair.package), found.get(pair.other)
    return (
        first is not None
        and other is not None
        and pair.at_least <= first < pair.below
        and pair.other_at_least <= other < pair.other_below
    )


def _parse(version: str) -> Version:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
