"""What MirroredStrategy and MultiWorkerMirroredStrategy have in common.

The way of one batch: a global batch of n rows is cut into one slice a replica (data/rows.py); each replica runs Keras'
train step on its slice in a `ReplicaStep` (gradients/step.py), whose row share makes unequal slices exact; the
optimizer's `apply` reduces the gradients first (gradients/reduction.py); clipping, the finite check and the update see
global gradients; metric variables are summed and the logs computed from the sums (strategies/keras_steps.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import tensorflow as tf

from tfdist import _compat
from tfdist._compat import hooks
from tfdist._compat import tensorflow as tf_compat
from tfdist.data.reading.reader_calls import readers_of
from tfdist.data.rows import as_tensor, join_parts, replica_slices, shard_policy, slice_rows
from tfdist.gradients import AccumulationOptions, Compressor, ReplicaStep, Steps, count_rows
from tfdist.log import logger
from tfdist.strategies.accumulating import AccumulatingStrategy
from tfdist.strategies.checks import refuse_mixed_up_use, refuse_xla
from tfdist.strategies.compressing import CompressionSetting
from tfdist.strategies.fit_position import fit_position
from tfdist.strategies.keras_steps import StepFunction, keras_replica_step, predict_function, with_nones
from tfdist.strategies.logs import Values
from tfdist.strategies.micro_batches import MicroBatch, each_micro_batch
from tfdist.strategies.step_report import step_report
from tfdist.strategies.workers import Workers

if TYPE_CHECKING:
    # A mixin: what it calls on `super()` is the tf.distribute strategy beside it.
    _Strategy = Any
else:
    _Strategy = object

_AutoShardPolicy = tf.data.experimental.AutoShardPolicy


class SynchronousStrategy(AccumulatingStrategy, CompressionSetting, Workers, hooks.KerasHooks, _Strategy):
    """Mixin in front of a tf.distribute strategy whose replicas train in step."""

    def __init__(
        self,
        *args: Any,
        gradient_accumulation_steps: Steps | AccumulationOptions = 1,
        compression: Compressor | Literal["auto"] | None = None,
        **kwargs: Any,
    ) -> None:
        self._init_accumulation(gradient_accumulation_steps)
        self._init_compression(compression)
        _compat.install()
        super().__init__(*args, **kwargs)
        tf_compat.use_runtime_instance_keys(self)

    @property
    def num_workers(self) -> int:
        """Processes that train together."""
        return tf_compat.num_workers(self)

    @property
    def worker_index(self) -> int:
        """This process among them, the chief is 0."""
        return tf_compat.worker_index(self)

    def equal_variables(self, model: Any) -> list[Any]:
        """What is equal on all replicas between two steps: a built model's weights and its optimizer's variables."""
        optimizer = model.optimizer
        return [*model.weights, *(optimizer.variables if optimizer is not None else [])]

    def run(self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """As `tf.distribute.Strategy.run`; Keras losses called in `fn` add up over replicas to the global mean."""
        self.peers.note_own_loop()
        convert = tf_compat.caller_autograph()

        @tf.autograph.experimental.do_not_convert
        def in_step(*args: Any, **kwargs: Any) -> Any:
            with hooks.step_scope(self.replica_step(count_rows((args, kwargs)), in_keras=False)):
                return convert(fn)(*args, **kwargs)

        return super().run(in_step, args=args, kwargs=kwargs, options=options)

    @property
    def beyond_xla(self) -> str:
        """What of a step XLA cannot compile, for messages; "" if it can all."""
        return f"the collectives of {type(self).__name__}" if self.num_replicas_in_sync > 1 else ""

    #: What a step in a custom loop is to a replica.
    replica_step: type[ReplicaStep] = ReplicaStep

    def run_replicas(self, function: Callable[[Any], Any], data: Any) -> Any:
        """Call a function in every replica, on that replica's part of a distributed batch."""
        return super().run(tf.autograph.experimental.do_not_convert(function), args=(data,))

    def run_keras_step(
        self, step: Callable[[Any], Any], data: Any, *, weighs: bool, piece: MicroBatch | None = None
    ) -> Any:
        """Run one of Keras' steps in every replica, on that replica's part of `data`.

        Args:
            step: a function of a batch.
            data: a distributed batch.
            weighs: whether a single replica's rows matter.
            piece: which micro-batch of `data`, None for all of it; only where rows matter.
        """
        one_step = weighs or self.num_replicas_in_sync > 1
        replica_step = keras_replica_step(step, piece=piece) if one_step else with_nones(step)
        return self.run_replicas(replica_step, data)

    def each_micro_batch(
        self, step: Callable[[MicroBatch], tuple[Values, tf.Tensor]], count: int
    ) -> tuple[Values, tf.Tensor]:
        """Run a step on all pieces of a batch, see `micro_batches.each_micro_batch`."""
        return each_micro_batch(step, count)

    def experimental_distribute_dataset(self, dataset: Any, options: Any = None) -> Any:
        """Give every replica its part of the data.

        - A dataset of global batches, the same on every worker (`AutoShardPolicy.AUTO`, the default, and `DATA`, which
          Keras gives to arrays): each replica gets its slice of the rows of each batch, so the global batches are those
          of one device.
        - `AutoShardPolicy.OFF`: the dataset is this worker's share already; its batches are divided among the
          local replicas only. TFRecord data of `tfdist.data` is such a share.
        - `FILE`, `HINT`: TensorFlow's own sharding; which rows meet in a global batch then depends on the
          number of workers.
        """
        if self.num_replicas_in_sync == 1 or not isinstance(dataset, tf.data.Dataset):
            return super().experimental_distribute_dataset(dataset, options)
        local = len(self.extended.worker_devices)
        # With one worker there is nothing to shard: its data is the global batches, whatever the policy.
        policy = shard_policy(dataset) if self.num_workers > 1 else _AutoShardPolicy.AUTO
        if policy in (_AutoShardPolicy.AUTO, _AutoShardPolicy.DATA):
            first = self.worker_index * local
            mine = replica_slices(dataset, first=first, local=local, count=self.num_replicas_in_sync)
            # All workers have equally many batches, so no step needs to ask whether the others have one.
            return mine if self._reads_in_place else self.distribute_datasets_from_function(lambda _: mine, options)
        if policy == _AutoShardPolicy.OFF:
            if self._reads_in_place and _has_equal_steps(dataset):
                return dataset
            mine = dataset if local == 1 else replica_slices(dataset, first=0, local=local, count=local)
            return self.distribute_datasets_from_function(lambda _: mine, options)
        logger.info("input: auto-sharded by TensorFlow, policy %s", policy.name)
        return super().experimental_distribute_dataset(dataset, options)

    @property
    def _reads_in_place(self) -> bool:
        """Whether batches are used on the device on which they are read, so that no iterator has to copy them ahead."""
        devices = self.extended.worker_devices
        return len(devices) == 1 and tf.DeviceSpec.from_string(devices[0]).device_type == "CPU"

    def split_batch(self, batch: Any) -> Any:
        """This worker's part of a global batch that every worker holds, as `strategy.run` takes it."""
        leaves = [as_tensor(leaf) for leaf in tf.nest.flatten(batch) if leaf is not None]

        def part(context: Any) -> list[tf.Tensor]:
            index = context.replica_id_in_sync_group
            return slice_rows(leaves, index, self.num_replicas_in_sync)

        if self.num_replicas_in_sync == 1:
            return batch
        parts = iter(self.experimental_distribute_values_from_function(part))
        return tf.nest.map_structure(lambda leaf: None if leaf is None else next(parts), batch)

    def join_rows(self, value: Any) -> tf.Tensor:
        """Rows of all replicas, in order, from one output of `run_keras_step`."""
        results = self.experimental_local_results(value)
        if self.num_workers > 1:
            return results[0]
        return join_parts(results)

    # What Keras asks for, see _compat/hooks.py.

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """The function that Keras calls once an execution."""
        refuse_xla(model, self.beyond_xla)
        if kind == "predict":
            return predict_function(self, model)
        step = model.train_step if kind == "train" else model.test_step
        return StepFunction(self, model, step, training=kind == "train")

    def prepare_optimizer(self, optimizer: Any) -> None:
        """Attach accumulation and compression, so that files can be loaded into them."""
        super().prepare_optimizer(optimizer)
        self.compress_optimizer(optimizer)

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """What data and accumulation need around a `fit`."""
        position = fit_position(data, steps_per_epoch)
        return [*step_report(), *position, *self.measuring(), *super().fit_callbacks(data, steps_per_epoch)]

    def around_fit(self) -> contextlib.AbstractContextManager[None]:
        """Errors of any operation in it are explained, such as those of reading metrics."""
        return self.peers.explained()

    def end_steps(self) -> None:
        """The other workers must be here too."""
        self.peers.end_round()

    def check_before_build(self, model: Any, data: hooks.DataSummary | None) -> None:
        """Refuse what can't work under this strategy.

        Raises:
            ValueError: XLA is asked for, the optimizer was made elsewhere, or the data is too small.
        """
        refuse_xla(model, self.beyond_xla)
        refuse_mixed_up_use(self, model, data)


def _has_equal_steps(dataset: tf.data.Dataset) -> bool:
    """Whether all workers surely have equally many batches, so that no step needs to ask the others for theirs."""
    return bool(readers_of(dataset)) and int(dataset.cardinality()) >= 0
