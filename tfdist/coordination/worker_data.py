"""Data that workers read themselves, each what it is leased, so that no example passes through the chief.

For what any process can read: TFRecord files of tfdist.data, and every tf.data graph without Python in it. Which steps
a worker reads is dealt out by the chief (dealing.py); how a worker finds them is in worker_reading.py.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist._compat.tensorflow_datasets import is_left_behind
from tfdist._compat.tensorflow_worker_datasets import DatasetText, is_one_to_one, to_text
from tfdist.coordination.dealing import Dealer, InOrder, Lease, Paced, Ranges, Streams
from tfdist.coordination.feeding import Feed
from tfdist.coordination.part_sizes import PartSizes
from tfdist.data.reading.reader_calls import is_whole, key_of, readers_of

#: Of the description of a dataset; more is data, which the chief sends where it's needed.
MAX_TEXT_BYTES = 16 << 20

_ids = itertools.count()


def in_turns(streams: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """All streams in one, a batch of each after the other, until all have ended."""
    if len(streams) == 1:
        return streams[0]
    turns = tf.data.Dataset.range(len(streams)).repeat()
    return tf.data.Dataset.choose_from_datasets(list(streams), turns, stop_on_empty_dataset=False)


class WorkerData:
    """What Keras holds in place of a distributed dataset.

    Args:
        streams: Describe what is read: one dataset, of which each worker gets a part, or one for each worker.
        workers: How many there are.
        seed: Of shuffles that were given none.
        on_pass: Called with each new pass.

    Raises:
        NotReadableElsewhere: it can't be read by workers.
    """

    def __init__(
        self, streams: Sequence[tf.data.Dataset], workers: int, seed: int, on_pass: Callable[[WorkerPass], None]
    ) -> None:
        self.streams, self.workers, self.seed, self._on_pass = streams, workers, seed, on_pass
        self.texts: list[DatasetText] = [to_text(stream, MAX_TEXT_BYTES) for stream in streams]
        #: The same for the same data, which workers then need no new function for.
        self.name = f"tfdist/data/{'-'.join(text.digest for text in self.texts)}"
        self.reader_keys = [key_of(reader) for stream in streams for reader in readers_of(stream)]
        cardinalities = [int(stream.cardinality()) for stream in streams]
        #: Of a pass, if it's known and executions are full, but for the last one.
        self.num_steps = cardinalities[0] if len(streams) == 1 and cardinalities[0] >= 0 else None
        self.is_endless = all(one == tf.data.INFINITE_CARDINALITY for one in cardinalities)
        #: Whether reading can begin at any step at once.
        self.is_indexed = len(streams) == len(self.reader_keys) == 1 and is_one_to_one(streams[0], is_whole)
        #: As the user told Keras.
        self.steps_per_epoch: int | None = None
        self.epochs, self._passes = itertools.count(), itertools.count()

    @property
    def element_spec(self) -> Any:
        """Of a batch."""
        return self.texts[0].spec

    def seeds(self, number: int) -> list[list[tuple[int, int]]]:
        """Of each stream's shuffles in a pass."""
        return [text.seeds(self.seed + stream, number) for stream, text in enumerate(self.texts)]

    def streams_here(self, number: int) -> list[tf.data.Dataset]:
        """The streams of a pass, in this process."""
        if not any(map(is_left_behind, self.streams)):
            return list(self.streams)
        pairs = zip(self.texts, self.seeds(number), strict=True)
        return [text.open(tf.constant(text.filling(seeds))) for text, seeds in pairs]

    def read_here(self) -> tf.data.Dataset:
        """Batches of the first stream in this process."""
        return self.streams_here(0)[0]

    def __iter__(self) -> WorkerPass:
        new = WorkerPass(self, next(self._passes))
        self._on_pass(new)
        return new


class WorkerPass:
    """One pass over the data.

    Args:
        data: What is read.
        number: Which pass it is, those counted that nobody reads, of which Keras makes some.
    """

    def __init__(self, data: WorkerData, number: int) -> None:
        self.data, self.number = data, number
        self._has_ended = False
        #: Of the workers, and steps of an execution on average; None if all executions have as many.
        self._pace: tuple[PartSizes, int] | None = None
        #: Which it is of the passes over this data that are read, and of all.
        self.epoch = self.id = -1
        self._begun = 0
        #: Of each stream's shuffles.
        self._seeds: list[list[tuple[int, int]]] = []
        self._dealer: Dealer | None = None

    def __iter__(self) -> WorkerPass:
        return self

    def __next__(self) -> Any:
        """What the chief reads itself, for `predict`, whose outputs it needs in order."""
        return next(self.read_by_chief)

    @functools.cached_property
    def read_by_chief(self) -> Feed:
        """The pass as the chief reads it."""
        return Feed(in_turns(self.data.streams_here(self.number)))

    def filling(self, stream: int) -> bytes:
        """What a worker needs to open a stream, beside the data's description."""
        return self.data.texts[stream].filling(self._seeds[stream])

    def end(self, lease: Lease) -> None:
        """Note that there were fewer steps than leased."""
        if self._dealer is not None:
            self._has_ended = self._dealer.end(lease)

    @property
    def has_ended(self) -> bool:
        """Whether it's known that there is no other step."""
        return self._has_ended or (self._dealer is not None and self._dealer.has_dealt_all)

    def follow(self, sizes: PartSizes, steps: int) -> None:
        """Give each worker's executions as many steps as it is fast, on average so many; if the length is known."""
        length, limit = self.data.num_steps, self.steps_per_epoch
        if length is not None and (limit is None or limit >= length):
            self._pace = sizes, steps

    @property
    def is_paced(self) -> bool:
        """Whether executions have as many steps as their workers are fast."""
        return self._pace is not None

    @property
    def is_measured(self) -> bool:
        """Whether it's known beforehand if there is a next step, and what executions have which."""
        return not self.is_paced and (self.data.num_steps is not None or self.data.is_endless)

    @property
    def steps_per_epoch(self) -> int | None:
        """As the user told Keras."""
        return self.data.steps_per_epoch

    def begin(self, count: int, *, always: bool) -> LeasedWork:
        """The next execution's work.

        Args:
            count: Steps that it makes at most.
            always: Whether all executions of the pass but the last make as many.

        Raises:
            StopIteration: there is none.
        """
        if self._dealer is None:
            self._dealer = self._make_dealer(count, always)
            self.epoch, self.id = next(self.data.epochs), next(_ids)
            # Once, and here: in the coordinator's threads it would be an operation on the worker for every execution.
            self._seeds = self.data.seeds(self.number)
        length = None if self.is_paced else self.data.num_steps
        if self.has_ended or (length is not None and self._begun >= length):
            raise StopIteration
        work = LeasedWork(self, self._dealer, count, self._pace and self._pace[0])
        left = count if self.data.num_steps is None else self.data.num_steps - self._begun
        work.steps = min(count, left)
        self._begun += count
        return work

    def _make_dealer(self, count: int, always: bool) -> Dealer:
        if self._pace is not None and self.data.num_steps is not None:
            sizes, steps = self._pace
            return Paced(self.data.num_steps, steps, sizes)
        if len(self.data.streams) > 1:
            return Streams(len(self.data.streams))
        if always and self.data.is_indexed and self.data.num_steps is not None:
            return Ranges(self.data.num_steps, count, self.data.workers)
        return InOrder(self.data.num_steps)


class LeasedWork:
    """What an execution reads, decided when a worker begins it."""

    def __init__(self, of_pass: WorkerPass, dealer: Dealer, count: int, sizes: PartSizes | None) -> None:
        self._pass, self._dealer, self._count, self._sizes = of_pass, dealer, count, sizes
        #: By which worker, and when.
        self._begun: tuple[int, float] | None = None
        #: How many steps it has, as far as anybody knows.
        self.steps = count
        self.lease: Lease | None = None
        #: Of the execution.
        self.number = 0
        self._lock = threading.Lock()

    def message(self, worker: int) -> bytes | None:
        """What the worker is told: its index, execution, pass, epoch, then the lease's fields, each int64; then seeds.

        None if another worker had better make these steps.
        """
        with self._lock:
            # Of a part that is done again nobody knows how long it took.
            self._begun = (worker, time.monotonic()) if self.lease is None else None
            self.lease = self.lease or self._dealer.deal(worker, self._count)
        if self.lease is None:
            return None
        numbers = np.array([worker, self.number, self._pass.id, self._pass.epoch, *self.lease], "<i8")
        return numbers.tobytes() + self._pass.filling(self.lease.stream)

    def landed(self, steps: int) -> None:
        """How many steps the worker found."""
        # The last parts have what is left.
        if self._sizes is not None and self._begun is not None and not self._pass.has_ended:
            worker, begun_at = self._begun
            self._sizes.note(worker, time.monotonic() - begun_at)
        if self.lease is not None and steps < self.lease.steps:
            self._pass.end(self.lease)
