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
        #: Of the averaging under way: fragments, values of each model, shares, steps, and until which step.
        self.under_way: tuple[Any, ...] | None = None
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
        if "overlap_steps" not in self.case.options:
            for p in self.due(self.position):
                self.average(p)

    def due(self, position: int) -> list[int]:
        every = self.case.options.get("sync_every_steps") or self.case.options["levels"]["cluster"]
        count = len(self.fragments)
        return (
            []
            if every == "epoch"
            else [p for p in range(count) if position % every == (p + 1) * every // count % every]
        )

    def end_execution(self, steps: int) -> None:
        """After executions of so many steps: what overlaps begins and ends here."""
        due = sorted(
            {p for position in range(self.position - steps + 1, self.position + 1) for p in self.due(position)}
        )
        if self.under_way is not None and (due or self.position >= self.under_way[-1]):
            self.end_overlap()
        if due:
            values = {p: [[v.numpy() for v in variables] for variables in self.variables(p)] for p in due}
            shares = {p: self.rows[p] / self.rows[p].sum() for p in due}
            begun = {p: self.steps[p] for p in due}
            self.rows[due] = 0
            self.under_way = due, values, shares, begun, self.position + self.case.options["overlap_steps"]

    def variables(self, p: int) -> list[list[Any]]:
        """Of a fragment and what goes along with it, the N models' variables."""
        places = [[m.trainable_variables[place] for m in self.models] for place in self.fragments[p]]
        return places + ([list(one) for one in zip(*map(self._companions, self.models), strict=True)] if p == 0 else [])

    def end_overlap(self) -> None:
        """What models have learned since goes on top."""
        if self.under_way is None:
            return
        due, values, shares, begun, _ = self.under_way
        self.under_way = None
        for p in due:
            for i, (variables, old) in enumerate(zip(self.variables(p), values[p], strict=True)):
                mean = sum(s * value for s, value in zip(shares[p], old, strict=True))
                if i < len(self.fragments[p]):
                    mean = self.outer_step(self.fragments[p][i], mean)
                for variable, value in zip(variables, old, strict=True):
                    variable.assign(variable.numpy() + (mean - value))
            self.steps[p] -= begun[p]

    def _update(self, model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        with tf.GradientTape() as tape:
            value = self.loss(y, model(tf.constant(x), training=True))
        self.losses.append((float(value), len(x)))
        model.optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)

    def average_all(self) -> None:
        self.end_overlap()
        for p, steps in enumerate(self.steps):
            if steps:
                self.average(p)
        self.position = 0

    def average(self, p: int) -> None:
        """The mean by rows, or the step of Keras' SGD with momentum on it."""
        share = self.rows[p] / self.rows[p].sum()
        for i, variables in enumerate(self.variables(p)):
            mean = sum(s * v.numpy() for s, v in zip(share, variables, strict=True))
            if i < len(self.fragments[p]):
                mean = self.outer_step(self.fragments[p][i], mean)
            for variable in variables:
                variable.assign(mean)
        self.rows[p], self.steps[p] = 0, 0

    def outer_step(self, place: int, mean: np.ndarray) -> np.ndarray:
        """Where the models go on from, of the mean of their weights."""
        outer = self.case.options.get("outer_optimizer")
        if outer is None:
            return mean
        gradient, settings = self.anchors[place] - mean, outer()
        rate, mu = float(settings.learning_rate), settings.momentum
        velocity = self.velocity[place] = mu * self.velocity[place] - rate * gradient
        change = mu * velocity - rate * gradient if settings.nesterov else velocity
        self.anchors[place] = self.anchors[place] + change
        return self.anchors[place]

    def _companions(self, model: keras.Model) -> list[Any]:
        slots = [v for v in model.optimizer.variables if v.ndim > 0]
        averages = [v for v in slots if v.path.endswith("_average")]
        kept = self.case.options.get("inner_state") != "average"
        return [*model.non_trainable_variables, *(averages if kept else slots)]


def run(case: Case, replicas: int) -> dict[str, np.ndarray]:
    """Weights and losses after each epoch, weights in files, and at the end predictions."""
    simulation = Simulation(case, replicas)
    x, y = features(), labels()
    found: dict[str, np.ndarray] = {}
    for epoch in range(case.epochs):
        for step, begin in enumerate(range(0, len(x), BATCH_SIZE)):
            simulation.step(x[begin : begin + BATCH_SIZE], y[begin : begin + BATCH_SIZE])
            is_last = begin + BATCH_SIZE >= len(x)
            if "overlap_steps" in case.options and (is_last or (step + 1) % case.steps_per_execution == 0):
                simulation.end_execution(step % case.steps_per_execution + 1)
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
