"""What a canary asks of upstream, and what it says when upstream moved.

Shims may or may not be in place in the process, so what upstream's functions are is asked of the shims, which keep
them, and what upstream calls is tried out with a stand-in in the place where the shim puts its own.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Canary:
    """Watches what one shim relies on.

    Attributes:
        shim: the name of its file in tfdist/_compat/, without the ending.
    """

    shim: str

    def module(self) -> Any:
        """The shim itself; only after `find`, since importing it fails where upstream's names are gone."""
        return importlib.import_module(f"tfdist._compat.{self.shim}")

    def check(self, holds: object, change: str) -> None:
        """Fail with what upstream changed, unless it holds."""
        if not holds:
            pytest.fail(f"Upstream changed what tfdist/_compat/{self.shim}.py relies on: {change}.")

    def find(self, path: str) -> Any:
        """What upstream has at "module:name.name", or a failure."""
        try:
            return pkgutil.resolve_name(path)
        except (ImportError, AttributeError) as error:
            self.check(False, f"{path} is gone ({error})")

    def has(self, instance: Any, *names: str) -> None:
        """An instance of upstream's class has these attributes."""
        for name in names:
            self.check(hasattr(instance, name), f"{type(instance).__name__}.{name} is gone")

    def takes(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Upstream's function can be called as the shim calls it."""
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            self.check(False, f"{function.__qualname__} does not take what the shim passes ({error})")

    def same_parameters(self, upstream: Callable[..., Any], replacement: Callable[..., Any]) -> None:
        """The replacement can stand where upstream's function stood."""
        expected, received = parameters(upstream), parameters(replacement)
        self.check(
            expected == received,
            f"{upstream.__qualname__} has the parameters {expected}, and the shim's stand-in {received}",
        )

    def still(self, faults: dict[str, str], fault: str) -> None:
        """The stock fault is still there (see stock_faults.py)."""
        found = faults[fault]
        if found == "gone":
            pytest.fail(f"Upstream fixed {fault!r}: that part of tfdist/_compat/{self.shim}.py can go.")
        self.check(found == "present", f"{fault!r} shows otherwise:\n{found}")


def parameters(function: Callable[..., Any]) -> list[tuple[str, str, Any]]:
    """Name, kind and default of each, of the function itself and not of one that it wraps."""
    found = inspect.signature(function, follow_wrapped=False).parameters.values()
    return [(p.name, p.kind.description, None if p.default is p.empty else repr(p.default)) for p in found]


class Recorder:
    """A stand-in that keeps what it was called with.

    Args:
        result: what each call returns.
    """

    def __init__(self, result: Any = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._result = result

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return self._result

    @property
    def was_called(self) -> bool:
        return bool(self.calls)
