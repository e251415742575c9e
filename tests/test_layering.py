"""Imports point down only, and private TensorFlow and Keras API is touched in one room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

PACKAGE = Path(__file__).parent.parent / "tfdist"

# Room (folder or file of tfdist/) -> floor. A room imports only what is on a lower floor.
FLOORS = {
    "errors": 0.0,
    "log": 0.0,
    "tables": 0.0,
    "cluster": 0.1,
    "planning": 0.1,
    "launch": 0.2,  # starts the tasks that cluster/ describes
    "_compat": 1.0,
    "gradients": 1.5,
    "layouts": 1.5,
    "updates": 1.5,
    "data": 1.5,
    "coordination": 2.0,
    "parallel": 2.0,
    "checkpoint": 2.0,
    "strategies": 3.0,
    "callbacks": 4.0,
    "verify": 4.7,  # runs scripts that use all of the above
    "config": 5.0,
    "cli": 5.1,  # its flags become the options of config.py
    "__main__": 5.2,
    "__init__": 4.5,  # the public names, for what a person runs
}
# May be read from anywhere although they are on the top floor.
PUBLIC_CONSTANTS = {"__version__"}
HEAVY = {"tensorflow", "keras", "tf_keras", "numpy"}
# Rooms that start without the HEAVY packages: the rooms below floor 1, and what a person runs.
STARTS_LIGHT = {room for room, floor in FLOORS.items() if floor < 1 or floor >= 5}
PRIVATE_MODULES = ("keras.src", "tf_keras.src", "tensorflow.python", "tensorflow.__internal__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def problems_of(source: str, room: str, package: str = "tfdist") -> list[str]:
    """What is wrong with a module of a room, one line each."""
    tree = ast.parse(source)
    found = list(upward_imports(tree, room, package))
    if room in STARTS_LIGHT:
        found += heavy_imports(tree)
    if room != "_compat":
        found += private_imports(tree)
        found += private_attributes(tree)
    return found


def imported(tree: ast.AST, package: str = "") -> Iterator[tuple[ast.stmt, str]]:
    """(statement, dotted name) of everything that is imported, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names if alias.name != "tfdist")
            if any(alias.name == "tfdist" for alias in node.names):
                yield from ((node, f"tfdist.{name}") for name in used_names(tree, "tfdist"))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((node, f"{module}.{alias.name}") for alias in node.names)


def used_names(tree: ast.AST, module: str) -> set[str]:
    """What is asked of a module that was imported as a whole."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
    }


def upward_imports(tree: ast.AST, room: str, package: str) -> Iterator[str]:
    if room not in FLOORS:
        yield f"room {room!r} has no floor in FLOORS"
        return
    for node, name in imported(tree, package):
        parts = name.split(".")
        if parts[0] != "tfdist" or set(parts[1:2]) & PUBLIC_CONSTANTS:
            continue
        target = parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"
        if target != room and FLOORS[target] >= FLOORS[room]:
            yield f"line {node.lineno}: {room} must not import {name} (floor of {target})"


def heavy_imports(tree: ast.Module) -> Iterator[str]:
    """Imports of TensorFlow and the like that run when the module is imported."""
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for inner in ast.walk(outer)
    }
    for node, name in imported(tree):
        if name.split(".")[0] in HEAVY and id(node) not in lazy:
            yield f"line {node.lineno}: {name} imported at module level"


def private_imports(tree: ast.AST) -> Iterator[str]:
    names = [(node.lineno, name) for node, name in imported(tree)]
    names += [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
    ]
    for line, name in names:
        hidden = name.split(".")[0] in HEAVY and any(is_private(p) for p in name.split("."))
        if name.startswith(PRIVATE_MODULES) or hidden:
            yield f"line {line}: {name} is private; touch it in tfdist/_compat/"


def private_attributes(tree: ast.AST) -> Iterator[str]:
    """`value._name`, unless value is self, or _name is defined in this module, or it's Python's."""
    own = defined_names(tree)
    plain_python = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] in sys.stdlib_module_names
    }
    for node in ast.walk(tree):
        value, name = attribute_access(node)
        if name == "__internal__" or (is_private(name) and name not in own):
            if isinstance(value, ast.Name) and value.id in {"self", "cls", *plain_python}:
                continue
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "super":
                continue
            where = f"line {node.lineno}: {ast.unparse(node)}"
            yield f"{where}: {name} is private; touch it in tfdist/_compat/"


def attribute_access(node: ast.AST) -> tuple[ast.expr | None, str]:
    """The object and the attribute's name, of `a.b` or of getattr(a, "b") and its kin."""
    if isinstance(node, ast.Attribute):
        return node.value, node.attr
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "setattr", "hasattr"}:
        name = node.args[1]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return node.args[0], name.value
    return None, ""


def defined_names(tree: ast.AST) -> set[str]:
    """Names of functions and classes, of fields, and of what is assigned to self."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    names.add(target.id)
                elif isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                    names.add(target.attr)
    return names


def is_private(name: str) -> bool:
    return name == "__internal__" or (name.startswith("_") and not name.endswith("__"))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_to_its_floor(path):
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    assert problems_of(path.read_text(encoding="utf-8"), room_of(path), package) == []


BAD = [
    ("data", "from tfdist.strategies import mirrored", "must not import"),
    ("data", "from tfdist import strategies", "must not import"),
    ("data", "import tfdist.callbacks.x as y", "must not import"),
    ("data", "from tfdist.gradients import reduction", "must not import"),
    ("strategies", "import tfdist\ntfdist.MirroredStrategy()", "floor of __init__"),
    ("data", "import tfdist\ntfdist.callbacks.x()", "floor of callbacks"),
    ("strategies", "from tfdist import MirroredStrategy", "floor of __init__"),
    ("_compat", "def f():\n    from tfdist.strategies import mirrored", "must not import"),
    ("cluster", "from ..launch import job", "must not import"),
    ("attic", "x = 1", "has no floor"),
    ("cluster", "import tensorflow as tf", "at module level"),
    ("launch", "try:\n    import numpy.linalg\nexcept ImportError:\n    pass", "at module level"),
    ("config", "from keras import optimizers", "at module level"),
    ("data", "from keras.src import backend", "keras.src"),
    ("data", "from keras import src", "keras.src"),
    ("strategies", "import tensorflow.python.eager.context", "tensorflow.python"),
    ("strategies", "from tensorflow import __internal__", "__internal__"),
    ("strategies", "import importlib\nimportlib.import_module('keras.src.x')", "keras.src"),
    ("strategies", "import tensorflow as tf\ntf.__internal__.x()", "__internal__"),
    ("strategies", "from tensorflow._api import v2", "_api"),
    ("strategies", "def f(s):\n    return s.extended._x", "_x"),
    ("strategies", "class A:\n    def f(self):\n        self.extended._x = 1", "_x"),
    ("gradients", "def f(model):\n    return getattr(model, '_compiled', None)", "_compiled"),
]
GOOD = [
    ("strategies", "from tfdist.data import rows\nfrom tfdist._compat import hooks\nimport keras"),
    ("strategies", "from tfdist.strategies import synchronous"),
    ("strategies", "class A(B):\n    def f(self):\n        return self._x + super()._y + other._f()"
     "\n    def _f(self): pass"),
    ("cluster", "def f():\n    import tensorflow as tf\n    return tf"),
    ("cluster", "import os\nos._exit(1)"),
    ("cli", "from tfdist import __version__\nfrom tfdist import config"),
    ("cli", "import tfdist\nprint(tfdist.__version__, tfdist.launch)"),
    ("launch", "from ..cluster import spec"),
    ("_compat", "from keras.src import backend\nbackend._x"),
    ("data", "'''Unlike keras.src, this is prose.'''"),
]  # fmt: skip


@pytest.mark.parametrize("room, source, expected", BAD)
def test_the_checker_finds(room, source, expected):
    found = problems_of(source, room, package=f"tfdist.{room}")
    assert any(expected in line for line in found), found


@pytest.mark.parametrize("room, source", GOOD)
def test_the_checker_lets_pass(room, source):
    assert problems_of(source, room, package=f"tfdist.{room}") == []
