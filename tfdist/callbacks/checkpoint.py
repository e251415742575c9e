"""Saves all that decides how training goes on, and goes on from it."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import keras

from tfdist import _compat
from tfdist._compat import hooks
from tfdist._compat.keras_epoch_iterators import (
    DataPlace,
    EpochIterators,
    forget_logs,
    set_initial_epoch,
    use_logs_if_no_step,
)
from tfdist._compat.keras_trainer import build_if_needed
from tfdist._compat.keras_weight_files import WeightCopies, copy_weights
from tfdist.checkpoint.background import BackgroundWriter
from tfdist.checkpoint.callback_states import CallbackStates
from tfdist.checkpoint.files import CheckpointFiles, Entry
from tfdist.checkpoint.plain_values import from_json, to_json
from tfdist.checkpoint.preemption import Preemption, make_preemption
from tfdist.checkpoint.schedules import make_schedules
from tfdist.checkpoint.shards import Parts, merge, pieces_of, write_part
from tfdist.checkpoint.state import (
    Content,
    capture_own,
    capture_seeds,
    check_model,
    describe_model,
    is_accumulating,
    restore,
)
from tfdist.checkpoint.workers import OneProcess
from tfdist.errors import CheckpointError
from tfdist.gradients.checkpoint_state import from_bytes, to_bytes
from tfdist.log import logger
from tfdist.strategies.fit_position import fit_position
from tfdist.strategies.hybrid_parallel import HybridParallelStrategy
from tfdist.strategies.synchronous import SynchronousStrategy

#: How long the other workers look for what the chief has found on the shared disk.
_SEEN_LATE_SECONDS = 120.0


@functools.cache
def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("tfdist", "keras", "tensorflow")}


def _put_together(content: Content, own: list[bytes]) -> None:
    for worker, payload in enumerate(own):
        content.arrays.update({f"worker{worker}/{key}": one for key, one in from_bytes(payload).items()})


@dataclasses.dataclass
class _Place:
    """A boundary.

    Attributes:
        epoch: in which training goes on.
        step: batches of it that were used.
        steps: batches that training has used in all.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0


class Checkpoint(keras.callbacks.Callback, hooks.LastCallback):
    """Saves training as it goes, and lets a `fit` that was killed go on to the same bits.

    A checkpoint holds weights, optimizer, sums of accumulated gradients, metrics, random states, the place in the
    epoch and in the data, the history and what other callbacks have learnt. `fit` calls it after all other callbacks,
    wherever it stands among them. When a `fit` begins, it goes on from the newest whole checkpoint in the directory,
    or begins anew if there is none; one directory is for one training. Under a strategy of several workers every worker
    has the callback, the chief writes, and all see the directory. Under `HybridParallelStrategy` each process writes
    the parts of variables that its devices hold. docs/checkpoints.md says what is exact.

    Args:
        directory: of this training's checkpoints, on a disk that all workers see.
        every_steps: batches from one checkpoint to the next; they are made at its multiples, the end of an epoch at
            the epoch's end.
        every_seconds: seconds from one checkpoint to the next, by the chief's clock. With neither, checkpoints are made
            at the end of each epoch. The end of `fit` always has one.
        keep: how many whole ones stay, the newest.
        on_error: what to do if a checkpoint can't be written: "raise" stops training, "warn" goes on without.
        save_on_sigterm: whether SIGTERM to any worker makes all of them save at the next step, and exit with code 75.

    Raises:
        ValueError: an option isn't what it should be, or the model is under a strategy that isn't a synchronous one of
            tfdist, or `HybridParallelStrategy`.
        CheckpointError: the directory can't be written, or holds checkpoints of another model.
        SystemExit: SIGTERM came, and all is saved.

    Example:
        >>> checkpoint = tfdist.callbacks.Checkpoint("/shared/run-7", every_steps=1000)
        >>> model.fit(dataset, epochs=10, callbacks=[checkpoint])  # again after a failure: goes on
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        keep: int = 3,
        on_error: Literal["raise", "warn"] = "raise",
        save_on_sigterm: bool = True,
    ) -> None:
        super().__init__()
        if on_error not in ("raise", "warn"):
            raise ValueError(f'Expected: on_error="raise" or "warn". Received: on_error={on_error!r}. Use one of them.')
        _compat.install()
        self._files = CheckpointFiles(directory, keep)
        self._schedules = make_schedules(every_steps, every_seconds)
        self._saves_on_sigterm, self._preemption = save_on_sigterm, Preemption()
        self._options = {
            "every_steps": str(every_steps),
            "every_seconds": str(every_seconds),
            "save_on_sigterm": str(save_on_sigterm),
        }
        self._raises = on_error == "raise"
        self._writer = BackgroundWriter()
        self._workers: Any = OneProcess()
        self._place, self._is_due = _Place(), False
        self._resume: tuple[str, Content] | None = None
        self._copies: WeightCopies | None = None
        self._parts: Parts | None = None
        #: Set when a `fit` is over, so that no thread waits for other processes any more.
        self._is_over = threading.Event()

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """Positions in TFRecord data are known for models without a strategy too."""
        return fit_position(data, steps_per_epoch)

    # Going on.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Behind all others, whose `on_train_begin` may reset what is restored here."""
        self._workers = self._workers_of_model()
        self._parts = getattr(self.model.distribute_strategy, "variable_parts", None)
        self._is_over = threading.Event()
        self._place, self._is_due, self._resume = _Place(), False, None
        build_if_needed(self.model, hooks.epoch_iterator_of(self.model))
        if not self.model.built:
            raise ValueError(
                "Expected: a model whose weights are there before its first step, so that a checkpoint can be loaded. "
                f"Received: model={self.model.name!r}, which isn't built. Give it an Input, or call it on a batch."
            )
        self._data = EpochIterators(hooks.epoch_iterator_of(self.model))
        self._states = CallbackStates(self.others)
        self._workers.agree("Checkpoint", self._options)
        self._preemption = make_preemption(self._workers, is_wanted=self._saves_on_sigterm)
        self._preemption.begin()
        name = self._workers.from_chief("which checkpoint is the newest", self._find)
        if name:
            self._go_on(name)
        for schedule in self._schedules:
            schedule.note_saved(self._place.steps)

    def _workers_of_model(self) -> Any:
        strategy = self.model.distribute_strategy
        if isinstance(strategy, SynchronousStrategy):
            return strategy
        if isinstance(strategy, HybridParallelStrategy):
            return strategy if strategy.num_workers > 1 else OneProcess()
        if hooks.hooks_of(strategy) is not None or strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "Expected: a model without a strategy, or under a synchronous one of tfdist, such as "
                f"tfdist.MirroredStrategy. Received: {type(strategy).__name__}. Use keras.callbacks.BackupAndRestore."
            )
        return OneProcess()

    def _find(self) -> str:
        name = self._files.newest_whole() or ""
        try:
            self._files.prepare()
        except CheckpointError as error:
            self._fail(error)
        return name

    def _go_on(self, name: str) -> None:
        where = self._files.directory / name
        if not self._workers.is_chief:
            self._wait_for(name)
        content = Content.read(self._files, name)
        check_model(self.model, content.values["model"], str(where))
        self._place = _Place(**content.values["place"])
        self._resume = name, content
        logger.info("training goes on from %s", where)
        self._restore(name, content)
        values = content.values
        self.model.history.epoch[:] = values["history_epochs"]
        self.model.history.history = from_json(values["history"], content.arrays)
        # What made training end, such as EarlyStopping, has done so for good.
        ended = self.params.get("epochs") or 0 if values["has_ended"] else 0
        set_initial_epoch(self.model, max(self._place.epoch, ended))
        positions = [(epoch, step) for epoch, step in values["positions"]]
        hooks.note_resume(self.model, hooks.Resume(self._place.epoch, positions, self._place.step))

    def _wait_for(self, name: str) -> None:
        deadline = time.monotonic() + _SEEN_LATE_SECONDS
        # Of parts a worker reads only those of its devices, where TensorFlow checks them.
        while problem := self._files.problem_of(name, by_content=self._parts is None):
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"Expected: checkpoint {name}, which the chief has found, on this worker too. Received: {problem} "
                    f"in directory={str(self._files.directory)!r}. Use a directory that all workers share."
                )
            time.sleep(0.2)

    def _restore(self, name: str, content: Content) -> None:
        restore(self.model, self._workers, content, self._files.directory / name, self._parts)
        self._states.set(content.values["callbacks"], content.arrays)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the epoch in the middle, if that is where training was."""
        resume, self._resume = self._resume, None
        step, self._place.epoch = self._place.step, epoch
        if resume is None:
            self._place.step = 0
            return
        name, content = resume
        if step:
            # Again: metrics were reset, and others' `on_epoch_begin` was called in this epoch before.
            self._restore(name, content)
            use_logs_if_no_step(self.model, from_json(content.values["logs"], content.arrays))
        place = DataPlace(**content.values["data"])
        self._data.go_on(place, step, knows_place=bool(content.values["positions"]))

    # Saving.

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A boundary."""
        forget_logs(self.model)
        self._data.note_batch()
        known = self._data.steps_per_epoch
        step = batch + 1 if known is None else min(batch + 1, known)
        self._place.steps += step - self._place.step
        self._place.step = step
        if self._writer.has_failed and self._workers.num_workers == 1:
            self._wait()
        for schedule in self._schedules:
            self._is_due = schedule.is_due(self._place.steps, self._workers) or self._is_due
        is_last = self._preemption.is_due((self._place.epoch, self._place.steps))
        if (self._is_due or is_last) and not self._is_to_wait(step, known):
            self._save(self._place, logs)
            if is_last:
                self._leave()

    def _is_to_wait(self, step: int, known: int | None) -> bool:
        if known is None and is_accumulating(self.model):
            # If this was the last batch, what is left over is flushed by a step that a new process hasn't traced.
            return True
        # Behind the last batch there is validation, which is not to be made again.
        progress = hooks.progress_of(self.model)
        return step == known or (progress is not None and progress.epoch > self._place.epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """A boundary; the epoch's logs are in the history by now."""
        forget_logs(self.model)
        self._place.epoch, self._place.step = epoch + 1, 0
        is_preempted = self._preemption.is_due((self._place.epoch, self._place.steps))
        is_last = epoch + 1 == self.params.get("epochs") or self.model.stop_training or is_preempted
        if is_last or self._is_due or not self._schedules:
            self._save(self._place, None)
        if is_preempted:
            self._leave()

    def _save(self, place: _Place, logs: dict[str, Any] | None) -> None:
        name = f"checkpoint of epoch {place.epoch}, step {place.step}"
        arrays = capture_own(self.model, self._workers, in_parts=self._parts is not None)
        own = self._workers.gather_bytes(to_bytes(arrays))
        if self._parts is None:
            self._workers.on_chief(lambda: self._begin_write(place, logs, own, name), name=name)
        else:
            self._begin_writing_parts(self._parts, place, logs, own, name)
        self._is_due = False
        for schedule in self._schedules:
            schedule.note_saved(place.steps)

    def _begin_write(self, place: _Place, logs: dict[str, Any] | None, own: list[bytes], name: str) -> None:
        """On the chief: copy what there is, and let the thread write it."""
        self._wait()
        self._workers.before_write(name)
        content = self._content(place, logs)
        self._copies = content.weights = copy_weights(self.model, self._copies)
        epoch, step = place.epoch, place.step

        def write() -> None:
            _put_together(content, own)
            self._files.write(epoch, step, content.to_files())

        self._writer.start(write)

    def _begin_writing_parts(
        self, parts: Parts, place: _Place, logs: dict[str, Any] | None, own: list[bytes], name: str
    ) -> None:
        """On all workers: hold on to what this one's devices have, and let the thread write it."""
        self._wait()
        folder = Path(self._workers.from_chief(f"folder of {name}", lambda: str(self._files.new_folder())))
        workers, worker, is_over = self._workers.num_workers, self._workers.worker_index, self._is_over
        pieces = pieces_of(self.model, parts, is_chief=self._workers.is_chief)
        if not self._workers.is_chief:
            self._writer.start(lambda: write_part(folder, worker, pieces))
            return
        content, epoch, step = self._content(place, logs), place.epoch, place.step

        def write_and_merge(folder: Path) -> dict[str, Entry]:
            write_part(folder, worker, pieces)
            return merge(folder, workers, is_over)

        def write() -> None:
            _put_together(content, own)
            self._files.write(epoch, step, content.to_files(), folder=folder, add=write_and_merge)

        self._writer.start(write)

    def _content(self, place: _Place, logs: dict[str, Any] | None) -> Content:
        arrays = capture_seeds(self.model)
        progress, history = hooks.progress_of(self.model), self.model.history
        values = {
            "format": 1,
            "versions": _versions(),
            "place": dataclasses.asdict(place),
            "data": dataclasses.asdict(self._data.place),
            "positions": [[one.epoch, one.step] for one in progress.positions] if progress else [],
            "workers": self._workers.num_workers,
            "replicas": self._workers.num_replicas_in_sync,
            "has_ended": bool(self.model.stop_training),
            "logs": to_json(dict(logs or {}), arrays, "logs"),
            "history_epochs": list(history.epoch),
            "history": to_json(dict(history.history), arrays, "history"),
            "callbacks": self._states.get(arrays),
            "model": describe_model(self.model),
        }
        return Content(values, arrays)

    def _wait(self) -> None:
        try:
            self._writer.wait()
        except CheckpointError as error:
            self._fail(error)

    def _fail(self, error: CheckpointError) -> None:
        if self._raises:
            raise error
        logger.warning("training goes on without a new checkpoint: %s", error)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """The last checkpoint is whole when `fit` returns."""
        self._wait_for_own_part()
        name = self._workers.from_chief("which checkpoint is the last", self._last_written)
        set_initial_epoch(self.model, 0)
        if self._preemption.is_due_at_end():
            self._preemption.leave(str(self._files.directory / name))

    def _leave(self) -> None:
        """Exit when what was saved is whole; an error if it can't be, whatever `on_error` is."""
        self._wait_for_own_part()
        name = self._workers.from_chief("which checkpoint was saved", lambda: self._last_written(must=True))
        self._preemption.leave(str(self._files.directory / name))

    def _wait_for_own_part(self) -> None:
        if not self._workers.is_chief:
            self._wait()

    def _last_written(self, must: bool = False) -> str:
        if must:
            self._writer.wait()
        self._wait()
        return next(iter(self._files.names()), "")

    def after_fit(self) -> None:
        """What was there for SIGTERM is there again, and the memory of copies is given back."""
        self._preemption.end()
        self._is_over.set()
        self._copies = None
