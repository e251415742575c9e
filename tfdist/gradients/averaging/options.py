"""What a user can choose about averaging."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any, Literal

from tfdist.gradients.averaging.compression import WIRES
from tfdist.gradients.averaging.outer import OuterFactory, outer_factory
from tfdist.gradients.compression import Compressor, NoCompression

INNER_STATE = ("keep", "average")
LEVELS = ("host", "cluster")


@dataclasses.dataclass(frozen=True)
class AveragingOptions:
    """When replicas average, what, and how it travels.

    Args:
        sync_every_steps: local steps between two averagings, H: an int of at least 1, or "epoch" for one at the end of
            each epoch (model averaging).
        levels: in place of `sync_every_steps`, `{"host": 1, "cluster": H}`: the replicas of one worker share their
            gradients in every step, as under MirroredStrategy, and the workers average every H steps. A host is a
            worker: one process with all devices of its machine.
        outer_optimizer: makes the optimizer whose step is the averaged change; None for plain averaging.
        warmup_steps: synchronous steps before the first local one (post-local SGD), counted by
            `optimizer.iterations`.
        inner_state: what becomes of momentum and the like when weights are averaged: "keep", each replica's own goes
            on, or "average", at the cost of sending it too.
        compression: of the averaged change on the wire: None, "bfloat16", "int8" or a compressor such as
            `tfdist.gradients.PowerSGD(rank=4)`, see `compression.py`.
        fragments: parts of the variables that are averaged one after another, each every H steps, at evenly spaced
            steps, so that less is sent at a time (Streaming DiLoCo); 1 for all at once.
        overlap_steps: steps that training goes on for while a fragment is averaged, less than H / P; 0 to wait for it.
            What replicas learn in the meantime stays on top of the average.
        verify_equal: whether replicas compare fingerprints of what they averaged: 8 bytes from every replica for each
            variable, and a pass over the values.

    Raises:
        ValueError, TypeError: an option is wrong.
    """

    sync_every_steps: int | Literal["epoch"] | None = None
    levels: Mapping[str, int] | None = None
    outer_optimizer: OuterFactory | None = None
    warmup_steps: int = 0
    inner_state: Literal["keep", "average"] = "keep"
    compression: Literal["bfloat16", "int8"] | Compressor | None = None
    fragments: int = 1
    overlap_steps: int = 0
    verify_equal: bool = True

    def __post_init__(self) -> None:
        self._check_period()
        _check_at_least("warmup_steps", self.warmup_steps, 0)
        _check_at_least("fragments", self.fragments, 1)
        _check_one_of("inner_state", self.inner_state, INNER_STATE)
        _check_compression(self.compression)
        if isinstance(self.compression, NoCompression):
            object.__setattr__(self, "compression", None)
        object.__setattr__(self, "outer_optimizer", outer_factory(self.outer_optimizer))
        if self.fragments > (self.period or 1):
            raise ValueError(
                "Each fragment is averaged at a step of its own. Expected: fragments of at most sync_every_steps = "
                f"{self.sync_every_steps if self.levels is None else self.levels}"
                f"{'' if self.period else ', which is 1 fragment'}. Received: fragments={self.fragments}. "
                "Take fewer, or a number of steps that is larger."
            )
        _check_at_least("overlap_steps", self.overlap_steps, 0)
        apart = (self.period or 1) // self.fragments
        if self.overlap_steps >= apart:
            raise ValueError(
                f"An averaging ends before the next begins. Expected: overlap_steps below {apart}, the steps from one "
                f"to the next. Received: overlap_steps={self.overlap_steps}. Take less, or more steps between them."
            )

    def _check_period(self) -> None:
        if (self.sync_every_steps is None) == (self.levels is None):
            raise ValueError(
                "Expected: one of sync_every_steps and levels. Received: "
                f"sync_every_steps={self.sync_every_steps!r}, levels={self.levels!r}. Give a number of steps, 'epoch', "
                "or levels={'host': 1, 'cluster': steps}."
            )
        if self.levels is not None:
            _check_levels(self.levels)
        elif self.sync_every_steps != "epoch":
            _check_at_least("sync_every_steps", self.sync_every_steps, 1, "a number of steps or 'epoch'")

    @property
    def period(self) -> int | None:
        """Local steps between two averagings over all replicas, H; None for epochs."""
        steps = self.sync_every_steps if self.levels is None else self.levels["cluster"]
        return None if steps == "epoch" else int(steps)  # type: ignore[arg-type]

    @property
    def shares_gradients(self) -> bool:
        """Whether the replicas of one worker share their gradients in every step."""
        return self.levels is not None

    @property
    def needs_anchor(self) -> bool:
        """Whether the weights of the last averaging must be kept, since it is changes from them that are averaged."""
        return self.outer_optimizer is not None or self.compression is not None

    def is_due(self, fragment: int, position: Any) -> Any:
        """Whether a fragment is averaged after the local step of this number, counted from 1; p = 0 .. P - 1 are at

        position mod H = floor((p + 1) H / P) mod H
        """
        if self.period is None:
            return False
        offset = (fragment + 1) * self.period // self.fragments % self.period
        return position % self.period == offset

    def due_between(self, before: int, position: int, fragments: int) -> tuple[int, ...]:
        """The first `fragments` fragments' numbers that are due after any of the steps before + 1 .. position."""
        steps = range(before + 1, position + 1)
        return tuple(index for index in range(fragments) if any(self.is_due(index, step) for step in steps))

    def described(self) -> str:
        """What must be equal on all workers, apart from the outer optimizer."""
        return (
            f"every {self.period or 'epoch'} steps, levels {dict(self.levels or {})}, warm-up {self.warmup_steps}, "
            f"inner state {self.inner_state}, compression {self.compression}, fragments {self.fragments}, "
            f"overlap {self.overlap_steps}, verify {self.verify_equal}, "
            f"outer optimizer {self.outer_optimizer is not None}"
        )


def _check_compression(compression: Any) -> None:
    if not isinstance(compression, Compressor):
        _check_one_of("compression", compression, (*WIRES, "a compressor such as tfdist.gradients.PowerSGD(rank=4)"))
    elif len(compression.stages()) > 1 or getattr(compression, "momentum", None):
        raise ValueError(
            "Averagings are few, and momentum is the outer optimizer's. Expected: a compressor without start_step, "
            f"warmup_steps and momentum. Received: compression={compression}. Leave them out; warmup_steps= of the "
            "strategy makes the first steps synchronous."
        )


def _check_levels(levels: Mapping[str, Any]) -> None:
    if not isinstance(levels, Mapping) or set(levels) != set(LEVELS) or levels["host"] != 1:
        raise ValueError(
            "Expected: levels={'host': 1, 'cluster': steps}: gradients are shared inside a host in every step, weights "
            f"averaged across hosts every so many. Received: levels={levels!r}. For an average of all replicas, give "
            "sync_every_steps."
        )
    _check_at_least("levels['cluster']", levels["cluster"], 1)


def _check_at_least(name: str, value: Any, least: int, what: str = "an int") -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected: {name} as {what}. Received: {name}={value!r}. Correct it.")
    if value < least:
        raise ValueError(f"Expected: {name} of at least {least}. Received: {name}={value}. Correct it.")


def _check_one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ValueError(f"Expected: {name} to be one of {known}. Received: {name}={value!r}. Choose one of them.")
