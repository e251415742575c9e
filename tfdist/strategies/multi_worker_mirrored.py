"""MultiWorkerMirroredStrategy: all devices of several machines."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import time
from collections.abc import Mapping
from typing import Any, Literal

import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat import tensorflow as tf_compat
from tfdist.cluster import Cluster, resolve
from tfdist.cluster.micro_batches import micro_batches
from tfdist.gradients import AccumulationOptions, Compressor, Steps
from tfdist.log import logger
from tfdist.strategies import communication as communications
from tfdist.strategies.agreement import data_facts, model_facts
from tfdist.strategies.collectives import CollectiveSettings
from tfdist.strategies.equal_weights import check_equal_weights
from tfdist.strategies.gathering import BytesGathering
from tfdist.strategies.start_up import as_cluster, check_seconds, peers_of_process
from tfdist.strategies.synchronous import SynchronousStrategy

#: How long a chief that saves in the middle of an accumulation waits for the others to save too.
SAVE_TOGETHER_SECONDS = 60.0


class MultiWorkerMirroredStrategy(SynchronousStrategy, tf.distribute.MultiWorkerMirroredStrategy):
    """Synchronous training on the devices of several machines, exact under Keras 3.

    The same script runs on every task (`tfdist launch`, or TF_CONFIG set by the scheduler). Every worker makes the
    same datasets of global batches and trains on its rows of each; `model.save` and file-writing callbacks write on
    the chief; `predict` returns all rows on every worker. Where no global seed was set, the workers agree on one.

    Args:
        cluster: a `tfdist.cluster.Cluster`, a `tf.distribute` ClusterResolver, or None for `resolve()`.
        gradient_accumulation_steps: global batches (micro-batches) to an optimizer step, a function of optimizer steps
            that gives them, or `tfdist.gradients.AccumulationOptions`.
        compression: of gradients between replicas, such as `tfdist.gradients.PowerSGD(rank=4)`; "auto" to
            choose by measuring the first steps of `fit`; None for none.
        communication: what CPUs send gradients through: "grpc", "mpi", or "auto" for MPI where mpiexec has started the
            job and mpi4py is installed, see docs/mpi.md. GPUs have NCCL.
        communication_options: `tf.distribute.experimental.CommunicationOptions` of TensorFlow's collectives.
        peer_timeout_seconds: how long a worker waits for another to reach the same `fit`, `evaluate`, `predict` or
            save; workers may prepare data for minutes before they do.
        heartbeat_timeout_seconds: how long after a worker is stopped or cut off the others end at the latest; it must
            not be silent for 0.3 of that. One whose process ends is noticed at once.
        start_timeout_seconds: how long workers wait for each other at the start.
        stall_seconds: a step that takes longer than this, and ten times the usual, is reported in the log with the
            worker that the others wait for, and what that worker does.

    Raises:
        TypeError: `compression` is none of `tfdist.gradients`.
        ClusterError: the cluster's description is wrong, this task's port is taken, or a worker doesn't come.
        WorkersDisagreeError: workers have other versions of a package, or run another script.
        RuntimeError: TensorFlow has run operations before.

    Example:

        strategy = tfdist.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(dataset, epochs=10)
    """

    #: Of the collectives between workers on CPUs.
    collective_settings = CollectiveSettings()

    def __init__(
        self,
        cluster: Cluster | tf.distribute.cluster_resolver.ClusterResolver | None = None,
        *,
        gradient_accumulation_steps: Steps | AccumulationOptions = 1,
        compression: Compressor | Literal["auto"] | None = None,
        communication: communications.Communication = "auto",
        communication_options: tf.distribute.experimental.CommunicationOptions | None = None,
        peer_timeout_seconds: float = 900.0,
        heartbeat_timeout_seconds: float = 30.0,
        start_timeout_seconds: float = 600.0,
        stall_seconds: float = 60.0,
    ) -> None:
        check_seconds(
            peer_timeout_seconds=peer_timeout_seconds,
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
            start_timeout_seconds=start_timeout_seconds,
            stall_seconds=stall_seconds,
        )
        given = resolve() if cluster is None else cluster
        resolver, place = as_resolver(given), as_cluster(given)
        choice = communications.choose(communication, place)
        # An evaluator reads what the others write, and is none of them.
        if place.num_workers > 1 and place.worker_index is not None:
            self.peers = peers_of_process(
                place,
                heartbeat_timeout_seconds=heartbeat_timeout_seconds,
                start_timeout_seconds=start_timeout_seconds,
                stall_seconds=stall_seconds,
                facts=choice.facts,
            )
            self.collective_settings.apply_to_process()
        try:
            super().__init__(
                cluster_resolver=resolver,
                communication_options=communication_options,
                gradient_accumulation_steps=gradient_accumulation_steps,
                compression=compression,
            )
        except RuntimeError as error:
            if "program startup" not in str(error):
                raise
            raise RuntimeError(
                f"{type(self).__name__}() connects the workers, which TensorFlow allows only before its first "
                "operation. Received: a strategy made after a tensor, dataset, model or optimizer. Make the strategy "
                "first."
            ) from error
        self._init_collectives(communication_options, through_mpi=choice.world is not None)
        self._init_workers(peer_timeout_seconds)
        communications.use(choice, self)

    def _init_collectives(
        self, options: tf.distribute.experimental.CommunicationOptions | None, *, through_mpi: bool
    ) -> None:
        """Between workers on CPUs; NCCL wants other sizes."""
        if self.num_workers == 1 or not self._computes_on_cpus:
            return
        given = getattr(options, "bytes_per_pack", 0)
        self.bucket_bytes = given or self.collective_settings.bucket_bytes
        self.keeps_keys = self.collective_settings.keeps_keys
        self.cuts_buckets = bool(given) or not through_mpi
        if not through_mpi:
            self.gathered_bytes = self.collective_settings.gathered_bytes_among(self.num_replicas_in_sync)

    @property
    def _computes_on_cpus(self) -> bool:
        return all(tf.DeviceSpec.from_string(one).device_type == "CPU" for one in self.extended.worker_devices)

    def _in_this_job(self, options: AccumulationOptions) -> AccumulationOptions:
        """An elastic job may have its workers cut batches while they are few."""
        return dataclasses.replace(options, splits=options.splits * micro_batches())

    # What Keras asks for, see _compat/hooks.py.

    def check_before_build(self, model: Any, data: hooks.DataSummary | None) -> None:
        """Refuse what can't work, and workers that are not about to do the same."""
        super().check_before_build(model, data)
        if data is not None:
            self.agree("fit" if data.training else "evaluate", {**data_facts(data), **self._model_facts(model)})

    def check_before_steps(self, model: Any) -> None:
        """Refuse workers whose weights differ, which callbacks may have loaded."""
        if self.num_workers > 1:
            with self.peers.explained():
                check_equal_weights(self, self.equal_variables(model), "fit")

    def check_before_predict(self, model: Any) -> None:
        """Refuse a `predict` that other workers take no part in."""
        self.agree("predict", self._model_facts(model))

    def _model_facts(self, model: Any) -> dict[str, str]:
        facts = model_facts(model, self.options_of(getattr(model, "optimizer", None)))
        return {**facts, "gradient compression": str(self.compression)}

    # What all workers do together at a boundary between steps.

    def gather_bytes(self, payload: bytes) -> list[bytes]:
        """By a collective of the workers' first replicas."""
        if self.num_workers == 1:
            return [payload]
        with self.peers.explained():
            return self._gather(payload)

    @functools.cached_property
    def _gather(self) -> BytesGathering:
        return BytesGathering(self)

    def before_write(self, path: str) -> None:
        """The file holds what all workers have added up, or owe, so they reduce it first."""
        if self.num_workers > 1 and self._kept_apart():
            # What is out of use is collected at other times on other workers.
            gc.collect()
            apart = self._kept_apart()
            positions = {name: one.position for name, one in apart.items()}
            for name in self.save_together(path, positions) if apart else ():
                apart[name].hold()

    def _kept_apart(self) -> dict[str, Any]:
        """What each worker has a part of, by name: sums in the middle of an accumulation, and errors of compression."""
        sums = {self._accumulations[one]: one for one in self.pending_accumulations}
        errors = {f"compression {name}": one for one, name in self._compressions.items() if one.state.variables}
        return {**sums, **errors}

    def save_together(self, what: str, parts: Mapping[str, str]) -> list[str]:
        """The parts that all workers are about to save in `what` now, and so can gather; none if the chief is alone.

        The chief waits for the others a while, since it can't know whether they are to come.

        Args:
            what: the file.
            parts: how far training is, by the parts whose state each worker has for itself. Workers may know others
                beside, of models that are out of use and not yet collected.
        """
        if self.is_chief:
            return self._invite_to_save(what, parts)
        while True:
            key = self._next_save(what)
            tf_compat.publish(f"{key}/{self.worker_index}", json.dumps(dict(parts)))
            answer = self._wait_for(f"{key}/decision", "the chief", f"save {what}")
            decision = json.loads(answer)
            # Of a save that only the chief made, earlier, nobody else knows.
            if all(decision["at"].get(name, position) == position for name, position in parts.items()):
                return decision["together"]

    def _invite_to_save(self, what: str, parts: Mapping[str, str]) -> list[str]:
        key = self._next_save(what)
        deadline = time.monotonic() + min(SAVE_TOGETHER_SECONDS, self._peer_timeout_seconds)
        together = list(parts)
        for other in range(1, self.num_workers):
            arrival = tf_compat.look_up(f"{key}/{other}", max(0.0, deadline - time.monotonic()))
            if arrival is None:
                logger.warning(
                    "%s is saved %s, because not all workers save it. Save on every worker", what, self._saved_alone
                )
                together = []
                break
            known = json.loads(arrival)
            together = [name for name in together if name in known]
        tf_compat.publish(f"{key}/decision", json.dumps({"at": dict(parts), "together": together}))
        return together

    def _next_save(self, what: str) -> str:
        self._writes[f"saves/{what}"] += 1
        return f"{self._room}/{self._occasion}/saves/{what}/{self._writes[f'saves/{what}']}"

    #: What a file lacks that only the chief has saved.
    _saved_alone = (
        "without what only the other workers have: micro-batches since the last optimizer step, errors of compression"
    )

    def chief_wrote(self, path: str, error: str = "") -> None:
        """Tell the other workers that a file is there, or why it is not."""
        self._release_sums()
        super().chief_wrote(path, error)

    def wait_for_chief(self, path: str) -> None:
        """Return when the chief has written `path`."""
        self.before_write(path)
        self._release_sums()
        super().wait_for_chief(path)

    def _release_sums(self) -> None:
        for one in self._kept_apart().values():
            one.release()


def as_resolver(
    cluster: Cluster | tf.distribute.cluster_resolver.ClusterResolver,
) -> tf.distribute.cluster_resolver.ClusterResolver:
    """The TensorFlow resolver of a cluster."""
    if not isinstance(cluster, Cluster):
        return cluster
    # A resolver that isn't told takes it that there are none, and the strategy its CPU.
    accelerators = {"GPU": count_gpus()}
    if cluster.is_local:
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({}), num_accelerators=accelerators
        )
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(addresses) for job, addresses in cluster.jobs.items()}),
        task_type=cluster.task.type,
        task_id=cluster.task.index,
        num_accelerators=accelerators,
        rpc_layer=cluster.rpc_layer,
    )


def count_gpus() -> int:
    """GPUs of this process, the parts of one that the user has cut counted each; TensorFlow isn't started for it."""
    return sum(
        len(tf.config.get_logical_device_configuration(gpu) or [gpu]) for gpu in tf.config.list_physical_devices("GPU")
    )
