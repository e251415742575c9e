"""ParameterServerStrategy: asynchronous training on workers, variables on parameter servers."""

from __future__ import annotations

import atexit
import random
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdist import _compat
from tfdist._compat import hooks
from tfdist._compat import tensorflow_parameter_server as compat
from tfdist._compat import tensorflow_remote_functions as remote_functions
from tfdist._compat.tensorflow import global_seed
from tfdist._compat.tensorflow_datasets import is_left_behind
from tfdist._compat.tensorflow_worker_datasets import NotReadableElsewhere
from tfdist.cluster import Cluster, Task, resolve
from tfdist.coordination.feeding import FedData, Feed
from tfdist.coordination.flights import Flights
from tfdist.coordination.serving import serve, tell_end
from tfdist.coordination.staleness import Staleness
from tfdist.coordination.worker_data import WorkerData, WorkerPass, in_turns
from tfdist.coordination.worker_step import WorkerStep, replica_index
from tfdist.coordination.worker_streams import DistributedStreams, check_streams
from tfdist.data.rows import shard_policy, slice_rows
from tfdist.errors import ClusterError
from tfdist.gradients import AccumulationOptions, Steps
from tfdist.log import logger
from tfdist.strategies.accumulating import AccumulationSetting
from tfdist.strategies.checks import refuse_few_steps, refuse_foreign_optimizer, refuse_jit_and_accumulation
from tfdist.strategies.multi_worker_mirrored import as_resolver
from tfdist.strategies.parameter_server_steps import CoordinatedFunction, PredictFunction
from tfdist.strategies.policy_checks import check_policy
from tfdist.strategies.policy_in_use import PolicyInUse
from tfdist.strategies.repeated_steps import RepeatedSteps
from tfdist.strategies.step_report import step_report
from tfdist.strategies.worker_devices import cpus_of_worker, devices_of_workers
from tfdist.updates import Async, Policy

# Measured with the MNIST CNN on 2 workers: with 1 a worker idles while its report travels, above 2 nothing changes.
_IN_FLIGHT_PER_WORKER = 2
_DATA = ("auto", "worker", "feed")


class ParameterServerStrategy(AccumulationSetting, hooks.KerasHooks, tf.distribute.ParameterServerStrategy):
    """Asynchronous training under Keras 3: workers compute gradients, parameter servers hold and update the variables.

    The same script runs on every task (`tfdist launch --ps=1`, or TF_CONFIG). On worker and ps tasks making the
    strategy serves until the chief is done, then ends the process; the chief runs the rest of the script. Each worker
    trains on a batch of its own, on variables as they are when it begins (asynchronous SGD; Dean et al., "Large Scale
    Distributed Deep Networks", 2012), so `batch_size` is one worker's. `evaluate` and `predict` are exact.

    Args:
        cluster: a `tfdist.cluster.Cluster`, a `tf.distribute` ClusterResolver, or None for `resolve()`.
        variable_partitioner: how variables are cut into shards, such as
            `tf.distribute.experimental.partitioners.MinSizePartitioner`; None leaves them whole.
        update: how a gradient meets the parameters, one of `tfdist.updates`; None is `Async()`. If it's given, the
            logs have the staleness of gradients.
        gradient_accumulation_steps: batches (micro-batches) that a worker adds up to an optimizer step, or
            `tfdist.gradients.AccumulationOptions`.
        replicas_per_worker: devices of each worker that share its batches, row by row, and push one gradient; None is
            all GPUs that a worker has, or its CPU. Without GPUs the CPU is cut into as many devices.
        data: who reads the data: "worker", each worker its part; "feed", the chief, which sends batches to the workers;
            "auto", the workers what any process can read, the chief the rest.
        max_in_flight: executions that may be under way at once; None is two a worker. With 1, training is that of one
            device.
        patience_seconds: how long an execution may take before another worker begins it too, since its own may have
            been stopped or cut off; its gradients are then applied twice if it comes back.

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
        update: Policy | None = None,
        gradient_accumulation_steps: Steps | AccumulationOptions = 1,
        replicas_per_worker: int | None = None,
        data: str = "auto",
        max_in_flight: int | None = None,
        patience_seconds: float = 60.0,
    ) -> None:
        described = _described(resolve() if cluster is None else cluster)
        _check(described, max_in_flight)
        if data not in _DATA:
            raise ValueError(f"data is one of {', '.join(map(repr, _DATA))}. Received: data={data!r}.")
        self._accumulation = AccumulationOptions.of(gradient_accumulation_steps)
        policy = Async() if update is None else update
        workers = len(described.addresses("worker"))
        check_policy(policy, workers, max_in_flight)
        if described.task.type != "chief":
            sys.exit(serve(described, cpus_of_worker(described.task, replicas_per_worker)))
        _compat.install()
        super().__init__(as_resolver(described), variable_partitioner)
        compat.place_variables(self)
        compat.use_devices(self, devices_of_workers(described, replicas_per_worker))
        remote_functions.keep_unused()
        coordinator = tf.distribute.coordinator.ClusterCoordinator(self)
        in_flight = max_in_flight or _IN_FLIGHT_PER_WORKER * workers
        self.flights = Flights(coordinator, described, in_flight, patience_seconds)
        self.policy = PolicyInUse(self, policy, self.flights, logs_staleness=update is not None)
        #: Of each worker, where functions can be given it.
        self.worker_indices = [tf.constant(index) for index in range(workers)]
        #: Train steps of the last `fit` that workers reported, and those that were applied once more than that.
        self.reported_steps = self.repeated_steps = 0
        self._pass: Feed | WorkerPass | None = None
        #: The data that was distributed last.
        self._data: WorkerData | FedData | None = None
        self._reading = data
        # Of shuffles without a seed, which all workers must make alike.
        seed = global_seed()
        self._seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        atexit.register(tell_end, described)

    @property
    def update(self) -> Policy:
        """How a gradient meets the parameters."""
        return self.policy.update

    @property
    def staleness(self) -> Staleness:
        """Of the pushes of the epoch."""
        return self.policy.staleness

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """What `fit`, `evaluate` and `predict` read."""
        if tf.inside_function() or not isinstance(dataset, tf.data.Dataset):
            return super().experimental_distribute_dataset(dataset, options)
        return self._distribute([dataset])

    def distribute_datasets_from_function(
        self, dataset_fn: Callable[[Any], tf.data.Dataset], options: Any = None
    ) -> Any:
        """Each worker's own data: `dataset_fn` is called on the chief, once for each worker.

        Its argument is a `tf.distribute.InputContext` with the number of workers and the worker's index, for
        `Dataset.shard` or files of its own. An epoch ends when all workers' data has; a worker at the end of its own
        goes on with another's. Data without an end needs `steps_per_epoch`.
        """
        if tf.inside_function():
            return super().distribute_datasets_from_function(dataset_fn, options)
        count = len(self.worker_indices)
        streams = [dataset_fn(tf.distribute.InputContext(count, i, self.num_replicas_in_sync)) for i in range(count)]
        check_streams(streams)
        return DistributedStreams(streams, self._distribute)

    def _distribute(self, streams: list[tf.data.Dataset]) -> WorkerData | FedData:
        self._data = self._distributed(streams)
        return self._data

    def _distributed(self, streams: list[tf.data.Dataset]) -> WorkerData | FedData:
        reason = "it is arrays in the chief's memory"
        if self._reading == "worker" or (self._reading == "auto" and not _is_keras_array(streams[0])):
            try:
                data = WorkerData(streams, len(self.worker_indices), self._seed, self._note_pass)
            except NotReadableElsewhere as error:
                reason = str(error)
            else:
                how = "each its own" if len(streams) > 1 else "by ranges" if data.is_indexed else "in turns"
                logger.info("input: read by the workers, %s", how)
                return data
        if self._reading == "worker":
            raise ValueError(
                "data='worker' takes data that any process can read: read_tfrecords, or tf.data without Python in it. "
                f"Received: dataset={streams[0]!r}; {reason}. Leave data out, and the chief feeds it to the workers."
            )
        if any(map(is_left_behind, streams)):
            raise ValueError(
                "The chief can't read a dataset that was made before the strategy, and no other process can read this "
                f"one. Received: dataset={streams[0]!r}; {reason}. Make the strategy first."
            )
        logger.info("input: fed to the workers by the chief%s", "" if self._reading == "feed" else f", for {reason}")
        return FedData(in_turns(streams), self._note_pass)

    def _note_pass(self, new: Feed | WorkerPass) -> None:
        self._pass = new

    def feed_of(self, batches: list[Any]) -> Feed | None:
        """The feed that gave these batches just now; None if the user did."""
        feed = self._pass.read_by_chief if isinstance(self._pass, WorkerPass) else self._pass
        return feed if feed is not None and feed.last is batches[-1] else None

    def run_on_worker(self, function: Callable[[Any], Any], batch: Any) -> list[Any]:
        """Call a function in each replica of the worker that a graph is traced for, with its rows of a batch."""
        count = self.num_replicas_in_sync
        parts = [batch] if count == 1 else [slice_rows(batch, replica, count) for replica in range(count)]

        results = [None] * count

        @tf.autograph.experimental.do_not_convert
        def run() -> None:
            replica = replica_index()
            results[replica] = function(parts[replica])

        self.extended.call_for_each_replica(run)
        return results

    # What Keras asks for, see _compat/hooks.py.

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """The function that Keras calls once an execution."""
        if kind == "predict":
            return PredictFunction(self, model)
        step = model.train_step if kind == "train" else model.test_step
        return CoordinatedFunction(self, model, step, training=kind == "train")

    def check_before_build(self, model: Any, data: hooks.DataSummary | None) -> None:
        """Refuse what can't work, and forget what an interrupted `fit` has left."""
        self._end_flights(model, begins_fit=data is not None and data.training)
        refuse_foreign_optimizer(self, model)
        refuse_jit_and_accumulation(model, self.options_of(model.optimizer))
        if data is not None and data.training:
            if self._data is not None:
                self.policy.note_batches(data.batch_size, self._data)
            self.policy.refuse(model, self.options_of(model.optimizer))
            refuse_few_steps(data.num_batches, len(self.worker_indices))

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """What counts the steps that are made twice, and tells the launcher of each."""
        return [*step_report(), RepeatedSteps(self)]

    def check_before_predict(self, model: Any) -> None:
        """Forget what an interrupted `fit` has left."""
        self._end_flights(model, begins_fit=False)

    def _end_flights(self, model: Any, *, begins_fit: bool) -> None:
        """Wait for all; a callback that evaluates in the middle of an epoch takes nothing away from it."""
        if hooks.is_fitting(model) and not begins_fit:
            self.flights.take_all()
        else:
            self.flights.forget()

    def note_epoch_length(self, data: Any, steps_per_epoch: int | None) -> None:
        """No more begin, even if data goes on."""
        data.steps_per_epoch = steps_per_epoch

    def end_steps(self) -> None:
        """All executions have ended when `fit` goes on to validation, callbacks and the next epoch."""
        self.flights.end_round()

    def before_write(self, path: str) -> None:
        """No step changes the variables while they are saved."""
        self.flights.take_all()

    def split_batch(self, batch: Any) -> Any:
        """One worker takes it all."""
        return batch

    def apply_gradients(
        self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """A worker's gradients are applied as they are, or added to those that wait for an optimizer step."""
        step = hooks.current_step()
        if isinstance(step, WorkerStep):
            step.apply_gradients(gradients, variables, update)
        else:
            update(gradients, variables)


def _is_keras_array(dataset: tf.data.Dataset) -> bool:
    """Whether Keras made it of arrays, which it marks with this policy."""
    return shard_policy(dataset) == tf.data.experimental.AutoShardPolicy.DATA


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
