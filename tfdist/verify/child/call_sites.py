"""Where the script itself calls what is known to go wrong on several replicas.

Public functions are replaced by ones that note the line of the script that calls them, and whether that was in a
training step and after it had taken gradients. Calls by libraries are not noted.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdist

_LIBRARIES = tuple(
    os.path.realpath(path) + os.sep
    for path in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(tfdist.__file__).parent),
    }
)
_local = threading.local()


class CallSites:
    """What was called where.

    Attributes:
        sites: for each kind of call the sites, as {"where": "train.py:12", "what": "tf.clip_by_norm", "in_step": …,
            "after_gradients": …}, each once, in the order of the first calls.
    """

    def __init__(self) -> None:
        self.sites: dict[str, list[dict[str, Any]]] = {}

    def note(self, kind: str, what: str, *, depth: int = 2) -> None:
        """Note a call, if the frame `depth` levels up belongs to the script."""
        frame = sys._getframe(depth)
        where = script_line(frame.f_code.co_filename, frame.f_lineno)
        if where is None:
            return
        site = {"where": where, "what": what, "in_step": in_step(), "after_gradients": _state("gradients")}
        known = self.sites.setdefault(kind, [])
        if site not in known:
            known.append(site)

    def watch(self) -> None:
        """Replace the functions."""
        for name in ("clip_by_value", "clip_by_norm", "clip_by_global_norm"):
            self._watch("clip", tf, name, f"tf.{name}")
        for name in ("clip", "norm"):
            self._watch("clip", keras.ops, name, f"keras.ops.{name}")
        self._watch("clip", tf.linalg, "global_norm", "tf.linalg.global_norm")
        for name in ("uniform", "normal", "truncated_normal", "gamma", "poisson", "shuffle", "categorical"):
            self._watch("random", tf.random, name, f"tf.random.{name}")
        for name in ("uniform", "normal", "truncated_normal", "randint", "shuffle", "categorical", "dropout"):
            self._watch("random", keras.random, name, f"keras.random.{name}")
        self._watch("unseeded", np.random, "default_rng", "np.random.default_rng()", _without_seed)
        self._watch("unseeded", os, "urandom", "os.urandom")
        self._watch("shard", tf.data.Dataset, "shard", "Dataset.shard")
        self._watch_gradients()

    def _watch(
        self, kind: str, owner: Any, name: str, what: str, matters: Callable[..., bool] = lambda *_, **__: True
    ) -> None:
        original = getattr(owner, name)
        note = self.note

        @functools.wraps(original)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if matters(*args, **kwargs):
                note(kind, what)
            return original(*args, **kwargs)

        setattr(owner, name, noted)

    def _watch_gradients(self) -> None:
        gradient = tf.GradientTape.gradient

        @functools.wraps(gradient)
        def noted(*args: Any, **kwargs: Any) -> Any:
            result = gradient(*args, **kwargs)
            _local.gradients = True
            return result

        tf.GradientTape.gradient = noted


def script_line(file: str, line: int) -> str | None:
    """`file:line`, the file as short as it is clear; None for libraries and generated code."""
    path = os.path.realpath(file)
    if not os.path.isfile(path) or path.startswith(_LIBRARIES) or "__autograph_generated" in path:
        return None
    here = os.getcwd() + os.sep
    return f"{path.removeprefix(here)}:{line}"


def step_begins() -> None:
    """A training step of a replica begins in this thread."""
    _local.step, _local.gradients = True, False


def step_ends() -> None:
    """It is over."""
    _local.step, _local.gradients = False, False


def in_step() -> bool:
    """Whether this thread is in a training step."""
    return _state("step")


def _state(name: str) -> bool:
    return bool(getattr(_local, name, False))


def _without_seed(*args: Any, **kwargs: Any) -> bool:
    return all(value is None for value in (*args, *kwargs.values()))
