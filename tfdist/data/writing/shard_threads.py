"""Threads that compress and write the records of a data set, each the records of its own shards, in order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

import tensorflow as tf

# A thread takes records by the chunk, since each exchange between threads costs as much as encoding a small record.
# Records of 1 KB to one thread, 2 cores: 300,000/s in chunks of 64, 70,000 one by one.
_CHUNK_RECORDS = 64
_CHUNK_BYTES = 1 << 20
# Chunks that wait for a thread before `put` does.
_QUEUE_CHUNKS = 4
_MOST_THREADS = 16

# A record, or what makes it of values that take long to encode.
Record = bytes | Callable[[], bytes]
_Chunk = list[tuple[int, Record | None]]


class ShardThreads:
    """Writes records to files in threads.

    Args:
        paths: Of the files; all of them are there when `finish` returns.
        compression: "", "GZIP" or "ZLIB".
        num_threads: How many threads; by default one a shard, as far as there are cores.
    """

    def __init__(self, paths: Sequence[str], compression: str, num_threads: int | None = None) -> None:
        self._paths = list(paths)
        self._compression = compression
        self._error: BaseException | None = None
        self._stopped = False
        count = min(len(self._paths), num_threads or min(os.cpu_count() or 1, _MOST_THREADS))
        self._queues: list[queue.Queue[_Chunk | None]] = [queue.Queue(_QUEUE_CHUNKS) for _ in range(count)]
        self._chunks: list[_Chunk] = [[] for _ in range(count)]
        self._chunk_bytes = [0] * count
        # Daemons: a program that forgets `close` must still end.
        self._threads = [
            threading.Thread(target=self._run, args=(which,), name=f"tfdist-write-{which}", daemon=True)
            for which in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, shard: int, record: Record, size_bytes: int) -> None:
        """Hands a record over; waits while its thread is far behind.

        Args:
            shard: Which file.
            record: Its bytes, or a function that a thread calls for them.
            size_bytes: About how much memory it takes until it's written.

        Raises:
            Exception: The first error of any thread, once there is one.
        """
        which = shard % len(self._queues)
        self._chunks[which].append((shard, record))
        self._chunk_bytes[which] += size_bytes
        if len(self._chunks[which]) >= _CHUNK_RECORDS or self._chunk_bytes[which] >= _CHUNK_BYTES:
            self._flush(which)

    def close_shard(self, shard: int) -> None:
        """Says that nothing more comes for a file."""
        self._chunks[shard % len(self._queues)].append((shard, None))

    def finish(self) -> None:
        """Writes what is left, and closes all files.

        Raises:
            Exception: The first error of any thread.
        """
        for which in range(len(self._queues)):
            self._flush(which)
        self._end()
        self._raise()

    def abort(self) -> None:
        """Leaves out what is not yet written, and ends."""
        self._stopped = True
        self._end()

    def _end(self) -> None:
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._queues, self._threads = [], []

    def _flush(self, which: int) -> None:
        self._raise()
        chunk, self._chunks[which], self._chunk_bytes[which] = self._chunks[which], [], 0
        self._queues[which].put(chunk)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, which: int) -> None:
        waiting, files = self._queues[which], _OpenFiles(self._paths, self._compression)
        for chunk in iter(waiting.get, None):
            # After an error chunks are still taken, so that nobody waits for a place in the queue.
            if not self._stopped and self._error is None:
                self._attempt(lambda chunk=chunk: files.write(chunk))  # type: ignore[misc]
        if not self._stopped and self._error is None:
            mine = range(which, len(self._paths), len(self._chunks))
            self._attempt(lambda: files.complete(mine))
        self._attempt(files.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            self._error = self._error or error


class _OpenFiles:
    """The files of one thread: opened with their first record, and closed early where that is known."""

    def __init__(self, paths: Sequence[str], compression: str) -> None:
        self._paths = paths
        self._compression = compression
        self._open: dict[int, tf.io.TFRecordWriter] = {}
        self._closed: set[int] = set()

    def write(self, chunk: _Chunk) -> None:
        for shard, record in chunk:
            if record is None:
                self.complete([shard])
            else:
                self._file(shard).write(record if isinstance(record, bytes) else record())

    def complete(self, shards: Sequence[int]) -> None:
        """Closes files, also such that never got a record."""
        for shard in shards:
            if shard not in self._closed:
                self._file(shard).close()
                del self._open[shard]
                self._closed.add(shard)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _file(self, shard: int) -> tf.io.TFRecordWriter:
        if shard not in self._open:
            self._open[shard] = tf.io.TFRecordWriter(self._paths[shard], self._compression or None)
        return self._open[shard]
