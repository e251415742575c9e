"""A process of a tf.data service: `python -m tfdist.data.service.process dispatcher|worker ...`.

Functions that data sets call in Python are known here because `reader_calls`, which registers them, is imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import tensorflow as tf

from tfdist.data.reading import reader_calls as reader_calls

# A worker that came back is to get work again at once, and a pass that was given up to cost little.
_HEARTBEAT_MS, _GIVEN_UP_MS = 1_000, 30_000
# Until then a dead worker is asked to take part in each pass.
_DEAD_MS = 5_000


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until it's killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    dispatcher = roles.add_parser("dispatcher")
    dispatcher.add_argument("--work_dir", required=True, help="what it must know after a restart")
    worker = roles.add_parser("worker")
    worker.add_argument("--dispatcher", required=True, help="HOST:PORT")
    for role in (dispatcher, worker):
        role.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    server = _dispatcher(options) if options.role == "dispatcher" else _worker(options)
    server.join()


def _dispatcher(options: argparse.Namespace) -> tf.data.experimental.service.DispatchServer:
    config = tf.data.experimental.service.DispatcherConfig(
        port=options.port,
        work_dir=options.work_dir,
        fault_tolerant_mode=True,
        job_gc_check_interval_ms=_GIVEN_UP_MS // 2,
        job_gc_timeout_ms=_GIVEN_UP_MS,
        worker_timeout_ms=_DEAD_MS,
    )
    return tf.data.experimental.service.DispatchServer(config)


def _worker(options: argparse.Namespace) -> tf.data.experimental.service.WorkerServer:
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=options.dispatcher,
        worker_address=f"127.0.0.1:{options.port}",
        port=options.port,
        heartbeat_interval_ms=_HEARTBEAT_MS,
    )
    return tf.data.experimental.service.WorkerServer(config)


if __name__ == "__main__":
    main()
