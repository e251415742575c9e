"""ParameterServerStrategy: asynchronous training on workers, variables on parameter servers."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist import _compat
from tfdist._compat import hooks
from tfdist._compat import tensorflow_parameter_server as compat
from tfdist.cluster import Cluster, Task, resolve
from tfdist.coordination.feeding import FedData, Feed
from tfdist.coordination.flights import Flights
from tfdist.coordination.serving import serve, tell_end
from tfdist.errors import ClusterError
from tfdist.log import logger
from tfdist.strategies.checks import refuse_foreign_optimizer
from tfdist.strategies.multi_worker_mirrored import as_resolver
from tfdist.strategies.parameter_server_steps import CoordinatedFunction, PredictFunction

# Measured with the MNIST CNN on 2 workers: with 1 a worker idles while its report travels, above 2 nothing changes.
_IN_FLIGHT_PER_WORKER = 2


class ParameterServerStrategy(hooks.KerasHooks, tf.distribute.ParameterServerStrategy):
    """Asynchronous training under Keras 3: workers compute gradients, parameter servers hold and update the variables.

    The same script runs on every task (`tfdist launch --ps=1`, or TF_CONFIG). On worker and ps tasks making the
    strategy serves until the chief is done, then ends the process; the chief runs the rest of the script. Each worker
    trains on a batch of its own, on variables as they are when it begins (asynchronous SGD; Dean et al., "Large Scale
    Distributed Deep Networks", 2012), so `batch_size` is one worker's. `evaluate` and `predict` are exact.

    Args:
        cluster: a `tfdist.cluster.Cluster`, a `tf.distribute` ClusterResolver, or None for `resolve()`.
        variable_partitioner: how variables are cut into shards, such as
            `tf.distribute.experimental.partitioners.MinSizePartitioner`; None leaves them whole.
        max_in_flight: executions that may be under way at once, which bounds how old the variables can be that a
            gradient was computed with; None is two a worker. With 1, training is that of one device.

    Raises:
        ClusterError: the cluster has no ps, no worker or not one chief.

    Example:

        strategy = tfdist.ParameterServerStrategy()
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(dataset, epochs=10)
    """

    def __init__(
        self,
        cluster: Cluster | tf.distribute.cluster_resolver.ClusterResolver | None = None,
        *,
        variable_partitioner: Callable[..., Any] | None = None,
        max_in_flight: int | None = None,
    ) -> None:
        described = _described(resolve() if cluster is None else cluster)
        _check(described, max_in_flight)
        if described.task.type != "chief":
            sys.exit(serve(described))
        _compat.install()
        super().__init__(as_resolver(described), variable_partitioner)
        compat.place_variables(self)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(self)
        workers = len(described.addresses("worker"))
        self.flights = Flights(coordinator, max_in_flight or _IN_FLIGHT_PER_WORKER * workers)
        #: Of each worker, where functions can be given it.
        self.worker_indices = [tf.constant(index) for index in range(workers)]
        self._feed: Feed | None = None
        atexit.register(tell_end, described)

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """What `fit`, `evaluate` and `predict` read."""
        if tf.inside_function() or not isinstance(dataset, tf.data.Dataset):
            return super().experimental_distribute_dataset(dataset, options)
        logger.info("input: fed to the workers by the chief")
        return FedData(dataset, self._note_pass)

    def _note_pass(self, feed: Feed) -> None:
        self._feed = feed

    def feed_of(self, batches: list[Any]) -> Feed | None:
        """The feed that gave these batches just now; None if the user did."""
        return self._feed if self._feed is not None and self._feed.last is batches[-1] else None

    def run_on_worker(self, function: Callable[[Any], Any], batch: Any) -> Any:
        """Call a function of a batch in the replica of the worker that a graph is traced for."""
        return self.extended.call_for_each_replica(tf.autograph.experimental.do_not_convert(function), args=(batch,))

    # What Keras asks for, see _compat/hooks.py.

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """The function that Keras calls once an execution."""
        if kind == "predict":
            return PredictFunction(self, model)
        step = model.train_step if kind == "train" else model.test_step
        return CoordinatedFunction(self, model, step, training=kind == "train")

    def check_before_build(self, model: Any, data: hooks.DataSummary | None) -> None:
        """Refuse what can't work, and forget what an interrupted `fit` has left."""
        self.flights.forget()
        if model.optimizer is not None:
            refuse_foreign_optimizer(self, model)

    def check_before_predict(self, model: Any) -> None:
        """Forget what an interrupted `fit` has left."""
        self.flights.forget()

    def end_steps(self) -> None:
        """All executions have ended when `fit` goes on to validation, callbacks and the next epoch."""
        self.flights.take_all()

    def before_write(self, path: str) -> None:
        """No step changes the variables while they are saved."""
        self.flights.take_all()

    def split_batch(self, batch: Any) -> Any:
        """One worker takes it all."""
        return batch

    def apply_gradients(
        self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """A worker's gradients are applied as they are."""
        update(gradients, variables)


def _described(cluster: Any) -> Cluster:
    if isinstance(cluster, Cluster):
        return cluster
    jobs = cluster.cluster_spec().as_dict()
    return Cluster(jobs, Task(cluster.task_type or "chief", cluster.task_id or 0), cluster.rpc_layer or "grpc")


def _check(cluster: Cluster, max_in_flight: int | None) -> None:
    missing = [job for job in ("chief", "worker", "ps") if not cluster.addresses(job)]
    if missing:
        raise ClusterError(
            "ParameterServerStrategy needs a chief, workers and parameter servers. "
            f"Received: a cluster without {' and '.join(missing)} ({cluster}). Start the script with `tfdist launch "
            "--workers=2 --ps=1 SCRIPT`, or give it tfdist.cluster.local(workers=2, ps=1)."
        )
    if max_in_flight is not None and max_in_flight < 1:
        raise ValueError(
            f"At least one execution must be in flight. Expected: max_in_flight >= 1 or None. Received: max_in_flight="
            f"{max_in_flight}. Leave it out for two a worker."
        )
