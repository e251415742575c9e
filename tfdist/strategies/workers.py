"""What the workers of a job do together outside of collectives: they wait for each other, compare, and tell.

It goes through the key-value store of the cluster's coordination service. A job of one worker has nobody to ask.
"""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable, Mapping

import keras

from tfdist._compat import tensorflow as tf_compat
from tfdist.errors import WorkersDisagreeError
from tfdist.log import logger
from tfdist.strategies.agreement import compare, wait_for
from tfdist.strategies.peer_watch import NobodyElse, PeerWatch

_made = itertools.count()


class Workers:
    """Mixin of a strategy whose processes train together."""

    #: Watches the other workers, as far as there are any.
    peers: PeerWatch | NobodyElse = NobodyElse()

    def _init_workers(self, peer_timeout_seconds: float) -> None:
        """To be called when the workers are connected.

        Args:
            peer_timeout_seconds: how long a worker waits for another to reach the same call.
        """
        self._peer_timeout_seconds = peer_timeout_seconds
        # Strategies are made in the same order on all workers, and so are the occasions on which workers meet.
        self._room = f"tfdist/{next(_made)}"
        self._occasion = 0
        self._writes: collections.Counter[str] = collections.Counter()
        if self.num_workers > 1:
            self._share_seed()

    @property
    def num_workers(self) -> int:
        """Processes that train together."""
        raise NotImplementedError

    @property
    def worker_index(self) -> int:
        """This process among them, the chief is 0."""
        raise NotImplementedError

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, models and logs."""
        return self.worker_index == 0

    @property
    def writes_files(self) -> bool:
        """True on the chief."""
        return self.is_chief

    @property
    def peer_timeout_seconds(self) -> float:
        """How long a worker waits for another to reach the same call."""
        return self._peer_timeout_seconds

    def on_chief(self, task: Callable[[], object], *, name: str) -> None:
        """Does something once for all workers, such as writing files that they then read.

        Args:
            task: What to do; called on the chief, while the others wait.
            name: Of the task; the same on all workers.

        Raises:
            RuntimeError: On the others, if the task failed on the chief, or took longer than `peer_timeout_seconds`.

        Example:
            >>> strategy.on_chief(lambda: tfdist.data.write_tfrecords(rows, pattern, num_shards=8), name=pattern)
        """
        if not self.is_chief:
            self.wait_for_chief(name)
            return
        try:
            task()
        except BaseException as error:
            self.chief_wrote(name, error=f"{type(error).__name__}: {error}")
            raise
        self.chief_wrote(name)

    def agree(self, occasion: str, facts: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:
        """Returns when all workers are about to do the same.

        Args:
            occasion: What it is, for messages.
            facts: What must be equal on all of them.
            names: What messages call the facts, where that may differ from worker to worker.

        Raises:
            WorkersDisagreeError: If they aren't, or a worker doesn't come.
        """
        if self.num_workers == 1:
            return
        self._occasion += 1
        self._writes.clear()
        with self.peers.explained():
            compare(
                occasion,
                {"call": occasion, **facts},
                room=f"{self._room}/{self._occasion}",
                worker=self.worker_index,
                workers=self.num_workers,
                timeout_seconds=self._peer_timeout_seconds,
                names=names,
                check=self.peers.check,
            )

    def from_chief(self, name: str, make: Callable[[], str]) -> str:
        """What the chief has made, on all workers.

        Args:
            name: Of the text; the same on all workers.
            make: Called on the chief, while the others wait.

        Raises:
            WorkersDisagreeError: On the others, if that failed on the chief, or took longer than
                `peer_timeout_seconds`.
        """
        if self.num_workers == 1:
            return make()
        self._writes[name] += 1
        key = self._write_key(name)
        if not self.is_chief:
            kind, _, text = self._wait_for(key, "the chief", f"say {name}").partition(":")
            if kind == "failed":
                raise WorkersDisagreeError(f"The chief could not say {name}: {text}")
            return text
        try:
            text = make()
        except BaseException as error:
            tf_compat.publish(key, f"failed:{type(error).__name__}: {error}")
            raise
        tf_compat.publish(key, f"made:{text}")
        return text

    def shared_key(self, name: str) -> str:
        """A key of the cluster's key-value store, the same on all workers, that is new since they last met."""
        return f"{self._room}/{self._occasion}/{name}"

    def gather_bytes(self, payload: bytes) -> list[bytes]:
        """Every worker's payload, in the order of workers, on every worker."""
        if self.num_workers == 1:
            return [payload]
        self._writes["bytes"] += 1
        key = self.shared_key(f"bytes/{self._writes['bytes']}")
        tf_compat.publish(f"{key}/{self.worker_index}", payload.hex())
        workers = range(self.num_workers)
        return [bytes.fromhex(self._wait_for(f"{key}/{one}", f"worker {one}", "send its part")) for one in workers]

    def chief_wrote(self, path: str, error: str = "") -> None:
        """Tell the other workers that a file is there, or why it is not."""
        if self.num_workers > 1:
            self._writes[path] += 1
            tf_compat.publish(self._write_key(path), error)

    def wait_for_chief(self, path: str) -> None:
        """Return when the chief has written `path`."""
        self._writes[path] += 1
        error = self._wait_for(self._write_key(path), "the chief", f"write {path}")
        if error:
            raise WorkersDisagreeError(f"The chief could not write {path}: {error}")

    def _wait_for(self, key: str, who: str, what: str) -> str:
        with self.peers.explained():
            return wait_for(key, who, what, self._peer_timeout_seconds, check=self.peers.check)

    def _share_seed(self) -> None:
        """Shuffles and initial values must be the same everywhere, so a seed that nobody set is the chief's."""
        seed = tf_compat.global_seed()
        key = f"{self._room}/seed"
        if self.is_chief:
            seed = random.SystemRandom().randrange(2**31) if seed is None else seed
            tf_compat.publish(key, str(seed))
        chiefs = int(self._wait_for(key, "the chief", "make its strategy"))
        if tf_compat.global_seed() is None:
            logger.info("no global seed was set: all workers use %d", chiefs)
            keras.utils.set_random_seed(chiefs)

    def _write_key(self, path: str) -> str:
        # Counted from the last time that all workers met, so that what only the chief saved before doesn't count.
        return self.shared_key(f"wrote/{path}/{self._writes[path]}")
