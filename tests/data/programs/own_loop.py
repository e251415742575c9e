"""A training loop of one's own that is killed: `python own_loop.py PATTERN FOLDER SHUFFLE EPOCHS KILL_AT`.

Each step adds its record numbers to FOLDER/ids and saves a checkpoint, as one: what is behind the last checkpoint is
taken back at the start. The process kills itself after KILL_AT steps, at the worst moment: batches are prefetched, and
the step behind the last checkpoint has been made.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import tensorflow as tf

import tfdist
from tests.helpers.tfrecords import ID


def main(pattern: str, folder: Path, shuffle: str, epochs: int, kill_at: int) -> None:
    dataset = tfdist.data.read_tfrecords(pattern, ID, batch_size=7, shuffle=shuffle or False, seed=3)
    position, written = tfdist.data.position(dataset), tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(position=position, written=written)
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), max_to_keep=2)
    checkpoint.restore(manager.latest_checkpoint)
    log = folder / "ids"
    log.touch()
    os.truncate(log, int(written))
    made = 0
    with log.open("ab") as file:
        for _ in range(position.epoch, epochs):
            for batch in dataset:
                file.write(b" ".join(b"%d" % one for one in batch["id"].numpy().tolist()) + b"\n")
                file.flush()
                made += 1
                if made == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                position.advance()
                written.assign(file.tell())
                manager.save()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
