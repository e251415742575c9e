"""N plain Keras models on one device, each trained on its rows of each batch, averaged by hand with NumPy.

`python -m tests.strategies.programs.local_sgd_simulation OUTPUT WORKERS DEVICES CASE...`

Devices that share gradients in every step are one model.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.strategies.programs.local_sgd_cases import BATCH_SIZE, CASES, Case, build, features, flat, labels, loss

#: Places among the model's weights of the variables of each of two fragments: 48 elements, and 8, 24 and 3.
FRAGMENTS = [[0], [1, 2, 3]]


class Simulation:
    """N models, and what averaging keeps."""

    def __init__(self, case: Case, replicas: int) -> None:
        self.case, self.replicas = case, replicas
        self.models = [build(case) for _ in range(replicas)]
        self.loss = loss()
        for model in self.models:
            model.optimizer = case.optimizer()
            model.optimizer.build(model.trainable_variables)
        trainable = range(len(self.models[0].trainable_variables))
        self.fragments = FRAGMENTS if case.options.get("fragments") == 2 else [list(trainable)]
        count = len(self.fragments)
        self.rows = np.zeros([count, replicas])
        self.steps, self.position, self.done = [0] * count, 0, 0
        #: Of the epoch: a mean loss and the rows that it is of, for each step of a model.
        self.losses: list[tuple[float, int]] = []
        self.anchors = [v.numpy() for v in self.models[0].trainable_variables]
        self.velocity = [np.zeros_like(anchor) for anchor in self.anchors]

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        """One global batch."""
        n = len(x)
        if self.done < self.case.options.get("warmup_steps", 0):
            for model in self.models:
                self._update(model, x, y)
            del self.losses[1 - self.replicas :]  # the same loss of the same rows
            self.anchors = [v.numpy() for v in self.models[0].trainable_variables]
            self.done += 1
            return
        for r, model in enumerate(self.models):
            part = slice(n * r // self.replicas, n * (r + 1) // self.replicas)
            if part.stop > part.start:
                self._update(model, x[part], y[part])
            else:
                model.optimizer.iterations.assign_add(1)
            self.rows[:, r] += part.stop - part.start
        self.done += 1
        self.position += 1
        self.steps = [steps + 1 for steps in self.steps]
        every = self.case.options.get("sync_every_steps") or self.case.options["levels"]["cluster"]
        for p in range(len(self.fragments)):
            if every != "epoch" and self.position % every == (p + 1) * every // len(self.fragments) % every:
                self.average(p)

    def _update(self, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        with tf.GradientTape() as tape:
            value = self.loss(y, model(tf.constant(x), training=True))
        self.losses.append((float(value), len(x)))
        model.optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)

    def average_all(self) -> None:
        for p, steps in enumerate(self.steps):
            if steps:
                self.average(p)
        self.position = 0

    def average(self, p: int) -> None:
        """The mean by rows, or the step of Keras' SGD with momentum on it."""
        share = self.rows[p] / self.rows[p].sum()
        outer = self.case.options.get("outer_optimizer")
        for place in self.fragments[p]:
            mean = self._mean([m.trainable_variables[place] for m in self.models], share)
            if outer is not None:
                gradient, settings = self.anchors[place] - mean, outer()
                rate, mu = float(settings.learning_rate), settings.momentum
                velocity = self.velocity[place] = mu * self.velocity[place] - rate * gradient
                change = mu * velocity - rate * gradient if settings.nesterov else velocity
                mean = self.anchors[place] + change
                self.anchors[place] = mean
            self._assign([m.trainable_variables[place] for m in self.models], mean)
        if p == 0:
            for companions in zip(*[self._companions(m) for m in self.models], strict=True):
                self._assign(companions, self._mean(companions, share))
        self.rows[p], self.steps[p] = 0, 0

    def _companions(self, model: keras.Model) -> list[Any]:
        slots = [v for v in model.optimizer.variables if v.ndim > 0]
        averages = [v for v in slots if v.path.endswith("_average")]
        kept = self.case.options.get("inner_state") != "average"
        return [*model.non_trainable_variables, *(averages if kept else slots)]

    def _mean(self, variables: Any, share: np.ndarray) -> np.ndarray:
        return sum(s * v.numpy() for s, v in zip(share, variables, strict=True))

    def _assign(self, variables: Any, value: np.ndarray) -> None:
        for variable in variables:
            variable.assign(value)


def run(case: Case, replicas: int) -> dict[str, np.ndarray]:
    """Weights and losses after each epoch, weights in files, and at the end predictions."""
    simulation = Simulation(case, replicas)
    x, y = features(), labels()
    found: dict[str, np.ndarray] = {}
    for epoch in range(case.epochs):
        for step, begin in enumerate(range(0, len(x), BATCH_SIZE)):
            simulation.step(x[begin : begin + BATCH_SIZE], y[begin : begin + BATCH_SIZE])
            if step + 1 == case.saved_after:
                simulation.average_all()
                found[f"file {epoch}"] = flat(simulation.models[0].get_weights())
        simulation.average_all()
        losses, rows = np.transpose(simulation.losses)
        found[f"loss {epoch}"] = np.average(losses, weights=rows)
        simulation.losses.clear()
        model = simulation.models[0]
        found[f"weights {epoch}"] = flat(model.get_weights())
        if case.evaluated:
            found[f"val_loss {epoch}"] = np.asarray(loss()(y, model(tf.constant(x))))
    slots = [np.stack([m.optimizer.variables[i].numpy() for m in simulation.models]) for i in slot_places(model)]
    found["slots"] = np.concatenate([slot.reshape(replicas, -1) for slot in slots], 1) if slots else np.zeros(0)
    found["iterations"] = np.asarray(int(model.optimizer.iterations))
    model.optimizer.finalize_variable_values(model.trainable_variables)
    found["weights"] = flat(model.get_weights())
    if case.evaluated:
        found["predictions"] = np.asarray(model(tf.constant(x)))
    return found


def slot_places(model: keras.Model) -> list[int]:
    return [place for place, v in enumerate(model.optimizer.variables) if v.ndim > 0]


def main(output: Path, workers: int, devices: int, names: list[str]) -> None:
    keras.config.set_floatx("float64")
    found = {}
    for name in names:
        shared = devices if "levels" in CASES[name].options else 1
        found[name] = run(CASES[name], workers * devices // shared)
        found[name]["slots"] = np.repeat(found[name]["slots"], shared, 0)
    (output / "0.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
