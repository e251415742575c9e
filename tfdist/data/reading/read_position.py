"""Where reading stands: the epoch, and the steps of it that training has made.

A pass over the data set is one epoch. It starts where the position was moved to last, or at the beginning of the epoch
behind the one that was handed out to its last batch. A pass that is given up, such as one of Keras' that only looks at
a batch, changes nothing; so does what a pass prefetches.

    position moved to (3, 120)  ->  the next pass gives epoch 3 from step 120 on  ->  the one behind it epoch 4
"""

from __future__ import annotations

import json
import threading

import tensorflow as tf


class Position(tf.train.experimental.PythonState):
    """The epoch and step that training has reached in a data set of `read_tfrecords`; ask `tfdist.data.position`.

    `fit` under a tfdist strategy moves it along by itself. In a loop of your own call `advance` after each step, and
    make it part of the checkpoint:

        >>> position = tfdist.data.position(dataset)
        >>> checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, position=position)
        >>> checkpoint.restore(tf.train.latest_checkpoint(directory))
        >>> for epoch in range(position.epoch, 10):
        ...     for batch in dataset:       # the rest of the epoch, then whole ones
        ...         train_step(batch)
        ...         position.advance()

    Attributes:
        epoch: The epoch that training is in, from 0.
        step: Steps of it that training has made.
        steps_per_epoch: How many an epoch has.
        begun: Epoch and first step of the pass that began last.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.epoch = self.step = 0
        self._start = self.begun = (0, 0)
        self._follows_fit = False
        self._is_over = self._is_empty = False
        self._lock = threading.Lock()

    def move_to(self, epoch: int, step: int = 0) -> None:
        """Lets the next pass give the batches of an epoch from a step on.

        Raises:
            ValueError: If there is no such step.
        """
        if epoch < 0 or not 0 <= step <= self.steps_per_epoch:
            raise ValueError(
                f"epoch must be at least 0 and step from 0 to {self.steps_per_epoch}, the steps of an epoch. "
                f"Received: epoch={epoch}, step={step}. Was the checkpoint made with other data or another batch size?"
            )
        with self._lock:
            if step == self.steps_per_epoch:
                epoch, step = epoch + 1, 0
            self.epoch, self.step = epoch, step
            self._start, self._is_over = (epoch, step), False

    def advance(self, steps: int = 1) -> None:
        """Notes that training has made some more steps; it doesn't change what the pass under way gives."""
        turns, self.step = divmod(self.step + steps, self.steps_per_epoch)
        self.epoch += turns

    def serialize(self) -> str:
        """What a `tf.train.Checkpoint` holds of it."""
        return json.dumps({"epoch": self.epoch, "step": self.step})

    def deserialize(self, string_value: str) -> None:
        """Goes on from a checkpoint."""
        fields = json.loads(string_value)
        self.move_to(fields["epoch"], fields["step"])

    def follow_fit(self, follows: bool) -> None:
        """While `fit` says which epoch comes next, passes that reach their end don't."""
        if follows and self._follows_fit:
            self.move_to(self.epoch)  # an earlier `fit` was broken off; this one has whole epochs
        self._follows_fit = follows

    # What the pipeline asks and says; from its threads.

    def begin(self) -> tuple[int, int]:
        """Epoch and first step of a pass that begins."""
        with self._lock:
            epoch, step = self._start
            self._is_empty, self._is_over = self._is_over, False
            if not self._is_empty:
                self.begun = self._start
            return epoch, self.steps_per_epoch if self._is_empty else step

    def handed_out(self, epoch: int, step: int) -> None:
        """A batch was handed out."""
        with self._lock:
            if step == self.steps_per_epoch - 1 and epoch == self._start[0] and not self._follows_fit:
                self._start = (epoch + 1, 0)

    def ended_early(self) -> None:
        """A pass that began in the middle of an epoch is at its end; the pipeline will ask for another at once."""
        with self._lock:
            # That one has an end too, which is no other pass's.
            self._is_over, self._is_empty = not self._is_empty, False
