"""ParameterServerStrategy: asynchronous training on workers, variables on parameter servers."""

from __future__ import annotations

import atexit
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdist import _compat
from tfdist._compat import hooks
from tfdist._compat import tensorflow_parameter_server as compat
from tfdist._compat import tensorflow_remote_functions as remote_functions
from tfdist._compat.keras_optimizers import leaves_of, step_count_of
from tfdist._compat.tensorflow import global_seed
from tfdist._compat.tensorflow_datasets import is_left_behind
from tfdist._compat.tensorflow_worker_datasets import NotReadableElsewhere
from tfdist.cluster import Cluster, Task, resolve
from tfdist.coordination.feeding import FedData, Feed
from tfdist.coordination.flights import Flights
from tfdist.coordination.local_training import LocalTraining
from tfdist.coordination.part_sizes import PartSizes
from tfdist.coordination.pushes import Pushes, Versions
from tfdist.coordination.rounds import Rounds
from tfdist.coordination.serving import serve, tell_end
from tfdist.coordination.staleness import Staleness
from tfdist.coordination.worker_data import WorkerData, WorkerPass, in_turns
from tfdist.coordination.worker_step import WorkerStep, replica_index
from tfdist.coordination.worker_streams import DistributedStreams, check_streams
from tfdist.data.rows import shard_policy, slice_rows
from tfdist.errors import ClusterError
from tfdist.gradients import AccumulationOptions, Steps, count_rows
from tfdist.log import logger
from tfdist.strategies.accumulating import AccumulationSetting
from tfdist.strategies.checks import refuse_few_steps, refuse_foreign_optimizer, refuse_jit_and_accumulation
from tfdist.strategies.multi_worker_mirrored import as_resolver
from tfdist.strategies.parameter_server_steps import CoordinatedFunction, PredictFunction
from tfdist.strategies.policy_checks import (
    refuse_accumulated_compensation,
    refuse_averages_and_accumulation,
    refuse_idle_workers,
    refuse_steps_without_round,
)
from tfdist.strategies.repeated_steps import RepeatedSteps
from tfdist.strategies.worker_devices import cpus_of_worker, devices_of_workers
from tfdist.updates import Async, Incremental, LocalPolicy, Policy

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
        self.update = Async() if update is None else update
        self._logs_staleness = update is not None
        if not isinstance(self.update, Policy):
            raise TypeError(f"update is one of tfdist.updates, such as Async(), or None. Received: update={update!r}.")
        workers = len(described.addresses("worker"))
        needed = self.update.gradients_per_step(workers)
        refuse_idle_workers(self.update, needed, workers, max_in_flight)
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
        self.flights.waits_at = self.update.waits_at
        #: Optimizer steps of several workers' gradients, where the policy makes them.
        self.rounds = None if needed is None else Rounds(self, needed, workers)
        if self.rounds is not None:
            self.flights.rounds_gate = self.rounds.gate
            self.flights.on_round_end, self.flights.on_forget = self.rounds.end, self.rounds.forget
        #: Of each worker, where functions can be given it.
        self.worker_indices = [tf.constant(index) for index in range(workers)]
        #: Train steps of the last `fit` that workers reported, and those that were applied once more than that.
        self.reported_steps = self.repeated_steps = 0
        self._versions = Versions(self)
        #: Of the pushes of the epoch.
        self.staleness = Staleness()
        self._pass: Feed | WorkerPass | None = None
        #: The data that was distributed last, and the rows of its batches, which are asked for where they matter.
        self._data: WorkerData | FedData | None = None
        self._batch_rows = 1
        self._sizes = PartSizes()
        self._reading = data
        # Of shuffles without a seed, which all workers must make alike.
        seed = global_seed()
        self._seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        atexit.register(tell_end, described)

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

    def pushes_of(self, model: Any, name: str, box: str) -> Pushes | None:
        """What takes the gradients of a function that trains a model; None without an optimizer.

        Args:
            model: A compiled Keras model.
            name: Of variables on the worker, the same for all functions of a step.
            box: Of where gradients wait, likewise.
        """
        if model.optimizer is None:
            return None
        box_or_none = None if self.rounds is None else box
        return Pushes(self.update, self._versions, model.optimizer, name, box=box_or_none)

    def local_training(self, model: Any, pushes: Pushes, variables: list[Any], name: str) -> LocalTraining | None:
        """What trains a worker's own parameters; None if the policy has none."""
        if not isinstance(self.update, LocalPolicy):
            return None
        return LocalTraining(self.update, pushes, model.optimizer, variables, name)

    @property
    def steps_together(self) -> int:
        """Train steps that an execution doesn't part, with the data of the last `fit`."""
        return self.update.steps_together(self._batch_rows) if isinstance(self.update, LocalPolicy) else 1

    def pace(self, data: Feed | WorkerPass) -> None:
        """Let executions have as many steps as their workers are fast, if the policy asks for it and the data can."""
        if isinstance(self.update, LocalPolicy) and self.update.follows_speed and isinstance(data, WorkerPass):
            data.follow(self._sizes, self.steps_together)

    def count_steps(self, optimizer: Any, steps: int) -> None:
        """Add what workers have made with parameters of their own to the optimizer's count, which is all workers'."""
        if isinstance(self.update, LocalPolicy):
            for leaf in leaves_of(optimizer):
                step_count_of(leaf).assign_add(steps)

    def note_pushes(self, report: np.ndarray | None, late: int | None, logs: dict[str, Any]) -> dict[str, Any]:
        """Count an execution's pushes; the logs, with their staleness in this epoch if the user chose a policy.

        Args:
            report: Of its pushes.
            late: By how many rounds its only push was late; None if there are no rounds.
            logs: Of the execution.
        """
        if late is not None:
            self.staleness.add_late(late)
        if report is not None:
            self.staleness.add(report)
            if self._logs_staleness:
                logs = {**logs, **self.staleness.logs(with_dropped=self.update.drops)}
        return logs

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
            if isinstance(self.update, Incremental) and self._data is not None:
                self._batch_rows = data.batch_size or rows_of_batch(self._data)
            self._refuse_for_policy(model)
            refuse_few_steps(data.num_batches, len(self.worker_indices))

    def _refuse_for_policy(self, model: Any) -> None:
        refuse_accumulated_compensation(self.update, self.options_of(model.optimizer))
        if isinstance(self.update, LocalPolicy):
            refuse_averages_and_accumulation(self.update, model, self.options_of(model.optimizer))
        elif self.rounds is not None:
            refuse_steps_without_round(self.update, int(model.steps_per_execution))

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """What counts the steps that are made twice."""
        return [RepeatedSteps(self)]

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


def rows_of_batch(data: WorkerData | FedData) -> int:
    """Rows of a batch, read if they aren't known from its type."""
    known = getattr(tf.nest.flatten(data.element_spec)[0], "shape", None)
    if known is not None and known.rank and known[0] is not None:
        return int(known[0])
    return int(count_rows(next(iter(data.read_here().take(1)))) or 1)


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
