"""What the shims ask of the rest of tfdist, so that they never import it.

Glossary:
    step: one call of `strategy.run` in one replica. It lives in a thread-local stack, because MirroredStrategy runs
        every replica in a thread of its own.
    row share: the replica's rows divided by the rows of the global batch; the shares of a step add up to 1.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf


class Step(Protocol):
    """One replica's view of the step that is being traced or run."""

    #: True inside Keras' own train, test and predict steps, where user code is written for one device.
    in_keras: bool
    #: True while upstream's code is asked for the replica's own loss.
    local_loss: bool
    #: True if steps of other workers change the same variables at the same time.
    is_concurrent: bool
    #: Which it is of those that compute on parts of one batch and change variables together.
    replica: int
    #: Mixed into random seeds, so that workers draw other numbers; an int32 scalar, or None.
    seed_offset: Any
    #: Keras variables that were assigned in this step.
    assigned: list[Any]
    #: Whether a batch that is cut into micro-batches is through with this one, a bool scalar; None for a whole batch.
    ends_batch: Any
    #: What variables were before the step, by id, as far as a step without rows is to leave them alone.
    before: dict[int, Any]
    #: What layers added with `add_loss` in this step: the layer, which must outlive its id, and its losses.
    layer_losses: dict[int, tuple[Any, list[Any]]]
    #: Metrics whose result was asked for in this step, and what they returned.
    results: list[tuple[Any, Any]]

    def has_rows(self) -> tf.Tensor:
        """Whether this replica has any row of the global batch, a bool scalar."""

    def total_rows(self) -> tf.Tensor:
        """Rows of the global batch, a float32 scalar."""

    def row_share(self) -> tf.Tensor:
        """This replica's part of the global batch's rows, a float32 scalar."""

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """The sum over replicas, with the gradient that the global batch's loss has."""

    def mean(self, loss: tf.Tensor, divisor: tf.Tensor) -> tf.Tensor:
        """The global batch's part of a loss that was divided by this replica's own `divisor`."""

    def row_mean(self, loss: tf.Tensor) -> tf.Tensor:
        """The global batch's part of a loss that is a mean over this replica's rows."""

    def sum_factor(self) -> tf.Tensor:
        """What to multiply a loss with that is a sum over this replica's rows."""

    def unreduced(self, loss: tf.Tensor) -> tf.Tensor:
        """A loss by row, whose gradient sums over all replicas' rows."""


@dataclass(frozen=True)
class DataSummary:
    """What is known of the input before the first step; None for what is not.

    Args:
        batch_size: rows of a global batch.
        num_rows: rows of an epoch.
        num_batches: global batches of an epoch.
        element_spec: types and shapes, as text that workers can compare.
        training: whether it is what `fit` trains on.
    """

    batch_size: int | None
    num_rows: int | None
    num_batches: int | None
    element_spec: str
    training: bool


class GradientHandler(Protocol):
    """What the outermost optimizer's `apply` asks in replica context."""

    def apply_gradients(
        self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """Call `update`, upstream's `apply`, with global gradients; now or in a later step."""


class Accumulation(Protocol):
    """Gradient accumulation of one optimizer, as `fit` needs to know it."""

    def refresh(self) -> None:
        """Take over what the user has changed since the last `fit`."""

    @property
    def skip_counts(self) -> dict[str, int]:
        """How often each skip rule left out an update, as it is to be called in the logs."""

    def end_epoch(self) -> None:
        """Take care of micro-batches that wait for an optimizer step."""


class KerasHooks:
    """What a tfdist strategy does in place of Keras; strategies inherit from it.

    Attributes:
        accumulates_for_keras: whether the strategy does what an optimizer's `gradient_accumulation_steps` asks for.
        splits_operations: whether the devices of a mesh share each operation.
        bucket_bytes: of tensors that are summed over replicas, what is sent together at most; 0 for all at once.
        cuts_buckets: whether a larger tensor is cut into several buckets.
        keeps_keys: whether what is sent in buckets has the same keys in every execution.
        gathered_bytes: buckets of at most this are gathered by all, who add them up for themselves.
    """

    accumulates_for_keras = True
    splits_operations = False
    bucket_bytes = 0
    cuts_buckets = True
    keeps_keys = False
    gathered_bytes = 0

    def whole(self, value: Any) -> Any:
        """A tensor that was drawn at random, the same on all devices; where operations are split."""
        raise NotImplementedError

    def call_on_mesh(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function eagerly, with its arguments on the mesh; where operations are split."""
        raise NotImplementedError

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """The function that `fit` ("train"), `evaluate` ("test") or `predict` ("predict") calls per execution."""
        raise NotImplementedError

    def check_before_build(self, model: Any, data: DataSummary | None) -> None:
        """Refuse mixed-up use before variables are made; no `data` in methods that take one batch."""

    def check_before_steps(self, model: Any) -> None:
        """Refuse mixed-up use before the first step of a `fit`, when callbacks have had their say."""

    def check_before_predict(self, model: Any) -> None:
        """Refuse mixed-up use before a `predict`."""

    def place_model(self, model: Any) -> None:
        """Called when a model is compiled or has got its variables, before its optimizer makes others beside them."""

    def prepare_optimizer(self, optimizer: Any) -> None:
        """Called when a model is compiled with the optimizer."""

    def beside(self, variable: Any) -> contextlib.AbstractContextManager[Any]:
        """Variables of tfdist's own that belong to a variable are made in here."""
        return contextlib.nullcontext()

    def around_fit(self) -> contextlib.AbstractContextManager[None]:
        """Entered while a `fit` is under way."""
        return contextlib.nullcontext()

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """Callbacks of tfdist's own for a `fit` on this data, called before the user's."""
        return []

    def apply_gradients(
        self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """Global gradients from this replica's, before clipping and before the finite check, for `update`."""
        raise NotImplementedError

    def note_epoch_length(self, data: Any, steps_per_epoch: int | None) -> None:
        """Note how many steps Keras was told to make of an epoch of this data, None for all."""

    def end_steps(self) -> None:
        """Called after the last step of an epoch, unless the data ended before."""

    @property
    def writes_files(self) -> bool:
        """Whether this process is the one that writes checkpoints, models and logs."""
        return True

    def saving(self, model: Any, path: str) -> contextlib.AbstractContextManager[None]:
        """Entered by all processes around a save: where the model is written, and where that is waited for."""
        return contextlib.nullcontext()

    def before_write(self, path: str) -> None:
        """Called on the writing process before it writes a file."""

    def chief_wrote(self, path: str, error: str = "") -> None:
        """Called on the writing process after a file was written, or failed to be."""

    def wait_for_chief(self, path: str) -> None:
        """Called on the others in place of writing: returns when the file is there."""


_local = threading.local()

#: Models in `fit`, the innermost last; replicas are threads, so this is no thread's own.
_fitting: list[Any] = []


def begin_fit(model: Any) -> None:
    """Note that a `fit` of the model begins."""
    _fitting.append(model)
    model.__dict__["_tfdist_fit"] = {"input", "step"}
    for left in ("_tfdist_epoch_iterator", "_tfdist_resume"):
        model.__dict__.pop(left, None)


def end_fit(model: Any) -> None:
    """Note that the `fit` is over."""
    _fitting.remove(model)
    model.__dict__.pop("_tfdist_fit", None)
    model.__dict__.pop("_tfdist_epoch_iterator", None)


def is_fitting(model: Any) -> bool:
    """Whether a `fit` of the model is under way."""
    return "_tfdist_fit" in model.__dict__


class LastCallback:
    """A Keras callback that `fit` calls after all others, Keras' own `History` included.

    Attributes:
        others: the user's callbacks of this `fit`, in order.
    """

    others: tuple[Any, ...] = ()

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """What else a `fit` on this data needs, called before the user's callbacks."""
        return []

    def after_fit(self) -> None:
        """The `fit` is over, also if it ended by an exception."""


def note_log_readers(model: Any, has_any: bool) -> None:
    """Note whether anybody looks at the logs of single batches in the `fit` under way."""
    model.__dict__["_tfdist_log_readers"] = has_any


def has_log_readers(model: Any) -> bool:
    """Whether anybody looks at the logs of single batches in the `fit` under way."""
    return model.__dict__.get("_tfdist_log_readers", True)


def note_epoch_iterator(model: Any, iterator: Any) -> None:
    """Remember Keras' iterator over what the `fit` under way trains on."""
    model.__dict__["_tfdist_epoch_iterator"] = iterator


def epoch_iterator_of(model: Any) -> Any:
    """Keras' iterator over what the `fit` under way trains on; None before it has one."""
    return model.__dict__.get("_tfdist_epoch_iterator")


class DataPosition(Protocol):
    """Where a `fit` stands in a data set that can go on from anywhere."""

    epoch: int
    step: int


@dataclass
class FitProgress:
    """How far a `fit` has come.

    Attributes:
        positions: Of the data sets it reads, as far as they can go on from anywhere.
        epoch: The epoch of `fit` that training goes on in.
    """

    positions: list[DataPosition]
    epoch: int = 0


def progress_of(model: Any) -> FitProgress | None:
    """How far the model's `fit` has come, which its backups are to hold."""
    return model.__dict__.get("_tfdist_progress")


def set_progress(model: Any, progress: FitProgress | None) -> None:
    """Note how far the model's `fit` has come; None when it has ended."""
    model.__dict__["_tfdist_progress"] = progress


@dataclass(frozen=True)
class Resume:
    """Where a `fit` goes on.

    Attributes:
        epoch: of `fit`.
        positions: epoch and step of each of its data sets.
        first_step: the number that Keras gives the epoch's first step; 0 if it counts the rest as an epoch.
    """

    epoch: int
    positions: list[tuple[int, int]]
    first_step: int = 0


def note_resume(model: Any, resume: Resume) -> None:
    """Note that a backup was restored."""
    model.__dict__["_tfdist_resume"] = resume


def take_resume(model: Any, epoch: int) -> Resume:
    """Where to go on, once, if this is the epoch in which a backup was made; else nowhere in particular."""
    resume = model.__dict__.get("_tfdist_resume")
    if resume is None or resume.epoch != epoch:
        return Resume(epoch, [])
    return model.__dict__.pop("_tfdist_resume")


def note_short_epoch(model: Any, is_short: bool) -> None:
    """Note whether the epoch under way is the rest of one, so that its data ends before its time."""
    model.__dict__["_tfdist_short_epoch"] = is_short


def is_short_epoch() -> bool:
    """Whether the innermost `fit` is in the rest of an epoch."""
    return any(model.__dict__.get("_tfdist_short_epoch", False) for model in _fitting[-1:])


def note_accumulation(accumulation: Accumulation) -> None:
    """Remember which model's `fit` an accumulation belongs to; called when a train step is traced."""
    for model in _fitting[-1:]:
        model.__dict__.setdefault("_tfdist_accumulations", weakref.WeakKeyDictionary())[accumulation] = None


def accumulations_of(model: Any) -> list[Any]:
    """The accumulations of the optimizers that a model's train step uses, as far as it was traced, in its order.

    All workers must have the same order, since each accumulation's leftovers are a collective; a set has none.
    """
    return list(model.__dict__.get("_tfdist_accumulations", ()))


def is_first_of_fit(model: Any, what: str) -> bool:
    """True once a `fit`: for the first "input" that is prepared, the training data, and for the first "step"."""
    ahead = model.__dict__.get("_tfdist_fit", set())
    if what not in ahead:
        return False
    ahead.discard(what)
    return True


def current_step() -> Step | None:
    """The innermost step of this thread, or None outside of any multi-replica step of tfdist."""
    stack = getattr(_local, "steps", None)
    return stack[-1] if stack else None


@contextlib.contextmanager
def step_scope(step: Step) -> Iterator[Step]:
    """Make `step` the current one of this thread."""
    stack = _local.__dict__.setdefault("steps", [])
    stack.append(step)
    try:
        yield step
    finally:
        stack.pop()


def hooks_of(strategy: Any) -> KerasHooks | None:
    """`strategy` if it is tfdist's, else None."""
    return strategy if isinstance(strategy, KerasHooks) else None


def active_strategy() -> Any | None:
    """The tfdist strategy that is current in this thread, or None."""
    return hooks_of(tf.distribute.get_strategy())


def model_strategy(model: Any) -> Any | None:
    """The tfdist strategy that `model` was made under, or None."""
    return hooks_of(getattr(model, "_distribute_strategy", None))
