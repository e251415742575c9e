"""What a checkpoint asks of a strategy, for models without one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any


class OneProcess:
    """Stands where a tfdist strategy of several workers might; the same names do the same."""

    num_workers, worker_index, num_replicas_in_sync = 1, 0, 1
    is_chief = True

    def scope(self) -> Any:
        """No strategy's scope."""
        return contextlib.nullcontext()

    def agree(self, occasion: str, facts: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:
        """There is nobody to agree with."""

    def from_chief(self, name: str, make: Callable[[], str]) -> str:
        """This process is the chief."""
        return make()

    def gather_bytes(self, payload: bytes) -> list[bytes]:
        """This process' own."""
        return [payload]

    def on_chief(self, task: Callable[[], Any], *, name: str) -> None:
        """Do it."""
        task()

    def before_write(self, path: str) -> None:
        """Nothing has to be reduced first."""

    def experimental_local_results(self, value: Any) -> tuple[Any, ...]:
        """The one copy."""
        return (value,)
