"""Steps of policies with parameters of the worker's own, worked out by hand: x = 1, loss x^2 / 2, SGD with rate 0.1."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdist import _compat
from tfdist._compat.tensorflow_worker_tables import function_of_worker
from tfdist.coordination.local_training import LocalTraining
from tfdist.coordination.pushes import Pushes, Versions
from tfdist.updates import Accumulated, ElasticAveraging, Incremental, LocalPolicy

pytestmark = pytest.mark.unit

_names = (f"tests/local/{number}" for number in itertools.count())


class Worker:
    """One that trains a variable of which there is one value, in this process."""

    def __init__(self, policy: LocalPolicy, centre: Any, versions: Versions, optimizer: Any = None) -> None:
        _compat.install()
        self.centre = centre
        self.optimizer = optimizer or keras.optimizers.SGD(0.1)
        self.optimizer.build([centre])
        name = next(_names)
        self._pushes = Pushes(policy, versions, self.optimizer, name, box=None)
        self._local = LocalTraining(policy, self._pushes, self.optimizer, [centre], name)
        self._functions: dict[int, Any] = {}

    def execution(self, steps: int, number: int = 1) -> tuple[list[float], np.ndarray]:
        """The worker's own value after each step, and the report of its pushes."""
        if steps not in self._functions:
            self._functions[steps] = tf.function(tf.autograph.experimental.do_not_convert(self._trace(steps)))
        values, report = self._functions[steps](tf.constant(number, tf.int64))
        return np.ravel(values).tolist(), report.numpy()

    def _trace(self, steps: int) -> Any:
        def run(number: tf.Tensor) -> Any:
            with function_of_worker():
                self._pushes.begin(number)
                self._local.begin(number)
                values = [self._step() for _ in range(steps)]
                self._local.finish()
                return values, self._pushes.report()

        return run

    def _step(self) -> tf.Tensor:
        with self._local.used():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(tf.convert_to_tensor(self.centre))) / 2
            gradient = tape.gradient(loss, self.centre.value)
            self._local.step([gradient], [self.centre], self.optimizer.apply, tf.constant(1.0))
        return self._local.own[0].read_value()


@pytest.fixture
def centre() -> Any:
    return keras.Variable([1.0])


@pytest.fixture
def versions() -> Versions:
    return Versions(tf.distribute.get_strategy())


def test_elastic_averaging(centre, versions):
    """1, 0.9, 0.81; then d = 0.5 (0.81 - 1), and the gradient is that before the meeting: 0.905 - 0.081."""
    worker = Worker(ElasticAveraging(0.5, 2), centre, versions)
    values, report = worker.execution(3)
    assert values == pytest.approx([0.9, 0.81, 0.824])
    assert centre.numpy() == pytest.approx([0.905])
    assert report[:64].sum() == 1


def test_a_worker_meets_the_centre_every_so_many_steps_and_is_not_staler_for_its_own_meetings(centre, versions):
    """0.824, 0.7416; then d = 0.5 (0.7416 - 0.905), and 0.8233 - 0.07416."""
    values, report = Worker(ElasticAveraging(0.5, 2), centre, versions).execution(5)
    assert values[2:] == pytest.approx([0.824, 0.7416, 0.74914])
    assert centre.numpy() == pytest.approx([0.8233])
    assert report[:3].tolist() == [2, 0, 0], "staleness 0, twice"


def test_elastic_averaging_goes_on_in_the_next_execution_and_begins_anew_in_the_next_fit(centre, versions):
    worker = Worker(ElasticAveraging(0.5, 2), centre, versions)
    assert worker.execution(1)[0] + worker.execution(2)[0] == pytest.approx([0.9, 0.81, 0.824])
    assert worker.execution(1, number=2)[0] == pytest.approx([0.905 * 0.9])


def test_elastic_averaging_with_momentum(centre, versions):
    """EAMSGD with momentum 0.5; what is kept is x + 0.5 v.

    v = -0.1, x = 0.9; v = -0.05 - 0.085, x = 0.765; d = 0.5 (0.765 - 1), x = 0.8825; the gradient is that at 0.6975:
    v = -0.0675 - 0.06975, x = 0.74525.
    """
    worker = Worker(ElasticAveraging(0.5, 2, 0.5), centre, versions)
    assert worker.execution(3)[0] == pytest.approx([0.85, 0.6975, 0.74525 - 0.068625])
    assert centre.numpy() == pytest.approx([0.8825])


def test_two_workers_pull_at_the_centre(centre, versions):
    """The second one's d is against the centre that the first one has moved, by one version."""
    policy = ElasticAveraging(0.5, 1)
    first, second = (Worker(policy, centre, versions) for _ in range(2))
    assert first.execution(1)[0] == second.execution(1)[0] == pytest.approx([0.9])
    assert first.execution(1)[0] == pytest.approx([0.95 - 0.09])
    assert centre.numpy() == pytest.approx([0.95])
    values, report = second.execution(1)
    assert values == pytest.approx([0.9 + 0.025 - 0.09])
    assert centre.numpy() == pytest.approx([0.925])
    assert report[:3].tolist() == [0, 1, 0], "staleness 1"


def test_accumulated(centre, versions):
    """0.9, 0.81, 0.729: a third of the change; two more at the end, of whose change it's half."""
    worker = Worker(Accumulated(3), centre, versions)
    values, report = worker.execution(5)
    after = 1 - 0.271 / 3
    assert values[:2] == pytest.approx([0.9, 0.81])
    assert values[2:] == pytest.approx([after, 0.9 * after, 0.81 * after])
    assert centre.numpy() == pytest.approx([after - 0.19 * after / 2])
    assert report[:2].tolist() == [2, 0]


def test_the_optimizers_slots_are_the_workers_own(centre, versions):
    """Momentum 0.5: -0.1; -0.05 - 0.09; the next execution goes on with it, from the centre's value."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
    worker = Worker(Accumulated(2), centre, versions, optimizer)
    assert worker.execution(2)[0][:1] == pytest.approx([0.9])
    after = 1 - 0.24 / 2
    assert centre.numpy() == pytest.approx([after])
    assert worker.execution(1)[0] == pytest.approx([after - 0.07 - 0.1 * after])
    assert optimizer.momentums[0].numpy() == pytest.approx([0.0])


def test_schedules_go_by_the_steps_of_all(centre, versions):
    """The other workers have made 10; the bias correction of Adam is by the worker's own first step."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.1, 0.05])
    optimizer = keras.optimizers.Adam(schedule)
    worker = Worker(Accumulated(3), centre, versions, optimizer)
    optimizer.iterations.assign(10)
    values, _ = worker.execution(2)
    assert values == pytest.approx([0.9, 0.85], abs=1e-3), "each step of Adam is its rate long here"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ElasticAveraging(0.0), "alpha is the part"),
        (lambda: ElasticAveraging(1.0), "Received: alpha=1.0"),
        (lambda: ElasticAveraging(0.5, 0), "communicate_every_steps counts"),
        (lambda: ElasticAveraging(0.5, 1, 1.0), "momentum is from 0"),
        (lambda: Accumulated(0), "steps counts a worker's steps"),
        (lambda: Incremental(0), "part_records is 1 or more"),
        (lambda: Incremental(1.5), "Received: part_records=1.5"),
    ],
)
def test_bad_options_are_refused(make, expected):
    with pytest.raises(ValueError, match=expected.replace("(", r"\(")):
        make()


def test_parts_are_whole_batches():
    assert [Incremental(100).steps_together(rows) for rows in (32, 50, 200)] == [4, 2, 1]
