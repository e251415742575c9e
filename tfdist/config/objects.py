"""From the names in a configuration to functions, classes and what they make."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tfdist.cluster.suggest import nearest_of
from tfdist.config.checking import unknown_key
from tfdist.config.schema import Part
from tfdist.errors import ConfigError


def make(part: Part, key: str, folder: Path, known: Mapping[str, Any], **arguments: Any) -> Any:
    """Makes what a part of the configuration describes.

    Args:
        part: Name and options.
        key: Where it stands in the configuration, for messages.
        folder: Where "path/file.py:function" starts from.
        known: Classes that can be named without a path.
        **arguments: Further keyword arguments.

    Raises:
        ConfigError: If there is no such thing, or it doesn't take these options.
    """
    function = find(part.name, key, folder, known)
    options = {**arguments, **part.options}
    _check_options(function, options, key)
    if not _is_ours(part.name):  # what a user's own function raises is theirs to see as it is
        return function(**options)
    try:
        return function(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{key} can't be made: {str(error).rstrip('.')}. Received: {key}.options={part.options!r} for "
            f"{part.name!r}. Correct the options."
        ) from error


def find(name: str, key: str, folder: Path, known: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the function or class of that name.

    Raises:
        ConfigError: If there is none.
    """
    if ":" in name:
        return _find_by_path(name, key, folder)
    by_plain_name = {_plain(each): value for each, value in known.items()}
    if _plain(name) in by_plain_name:
        return by_plain_name[_plain(name)]
    near = nearest_of(_plain(name), by_plain_name)
    names = {_plain(each): each for each in known}
    raise ConfigError(
        f"{key} must be {'the name of a class, or ' if known else ''}package.module:function. "
        f"Received: {key}={name!r}. " + (f"Did you mean {names[near]!r}?" if near else _choose_from(known))
    )


def classes_of(module: ModuleType, base: type) -> dict[str, type]:
    """The public classes of a module that derive from `base`."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }


def _choose_from(known: Mapping[str, Any]) -> str:
    return f"Choose from {', '.join(sorted(known))}." if known else "Say where the function is."


def _is_ours(name: str) -> bool:
    """Whether what it makes is Keras' or tfdist's, so that an error is about the options."""
    return ":" not in name or name.startswith(("tfdist.", "keras."))


def _find_by_path(name: str, key: str, folder: Path) -> Callable[..., Any]:
    where, _, attribute = name.rpartition(":")
    module = _load_file(where, key, folder) if where.endswith(".py") else _load(where, key)
    found = getattr(module, attribute, None)
    if callable(found):
        return found
    near = nearest_of(attribute, [each for each in vars(module) if not each.startswith("_")])
    raise ConfigError(
        f"{key} must name a function or class of {where}. Received: {key}={name!r}. "
        + (f"Did you mean {where}:{near}?" if near else "Correct the name behind the colon.")
    )


def _load_file(where: str, key: str, folder: Path) -> ModuleType:
    path = (folder / where).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(
            f"{key} must name a Python file. Received: {key}={where!r}, which is {path}. "
            "Paths start from the configuration file's folder; correct it."
        )
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", "") == str(path):
        return sys.modules[path.stem]
    _search_in(path.parent)  # so that it can import its neighbours, as a script can
    module = importlib.util.module_from_spec(spec)
    # Keras looks a saved class up by its module, so the module must be found under its name.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _load(where: str, key: str) -> ModuleType:
    _search_in(Path.cwd())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise  # the module is there, one that it imports is not
        raise ConfigError(
            f"{key} must name a module that can be imported. Received: {key}={where!r} ({error}). "
            "Correct the name, install its package, or write path/file.py:function."
        ) from error


def _search_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _check_options(function: Callable[..., Any], options: Mapping[str, Any], key: str) -> None:
    """Raises ConfigError for an option that isn't among the parameters, those of bases included."""
    takes: set[str] = set()
    for each in _constructors(function):
        try:
            parameters = inspect.signature(each).parameters.values()
        except ValueError:  # made in C; it says itself what it doesn't take
            return
        takes |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    else:
        if not inspect.isclass(function):
            return
    for name in options:
        if name not in takes:
            raise unknown_key(f"{key}.options", name, takes - {"self"}, f"for {key}")


def _constructors(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The function; of a class its own __init__, then those that it passes further arguments to."""
    if not inspect.isclass(function):
        return [function]
    return [vars(base)["__init__"] for base in function.__mro__[:-1] if "__init__" in vars(base)]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
