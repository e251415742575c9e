"""LocalSGDStrategy: workers that train by themselves and average their weights once in a while."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tfdist._compat import hooks
from tfdist._compat.keras_averaging import attach_averaging, averaging_of
from tfdist._compat.keras_optimizers import accumulation_of, gradient_accumulation_steps, parts_of
from tfdist._compat.tensorflow_local_devices import local_devices
from tfdist.cluster import Cluster
from tfdist.cluster.micro_batches import micro_batches
from tfdist.gradients import AccumulationOptions, Compressor, all_reduce_gradients
from tfdist.gradients.averaging import (
    AveragingCheckpoint,
    AveragingOptions,
    LocalAveraging,
    LocalStep,
    describe,
    is_outer,
)
from tfdist.gradients.step import ReplicaStep, current_share
from tfdist.strategies.checks import refuse_xla
from tfdist.strategies.collectives import CollectiveSettings
from tfdist.strategies.communication import Communication
from tfdist.strategies.local_sgd_steps import AveragedTestFunction, LocalTrainFunction, averaged_predict_function
from tfdist.strategies.multi_worker_mirrored import MultiWorkerMirroredStrategy

Update = Callable[[list[Any], list[Any]], None]


class LocalSGDStrategy(MultiWorkerMirroredStrategy):
    """Data-parallel training that talks rarely: every replica makes H steps, then all go on from their average.

    Everyone has the averaged weights after each averaging, at the end of each epoch, in `evaluate` and `predict`, and
    in files. See `tfdist/gradients/averaging/` for the formulas and docs/local_sgd.md for how to choose.

    Args:
        cluster: a `tfdist.cluster.Cluster`, a `tf.distribute` ClusterResolver, or None for `resolve()`. A job of one
            worker averages over its devices.
        sync_every_steps: local steps between two averagings, H, or "epoch".
        levels: in place of it, `{"host": 1, "cluster": H}`: the devices of a worker share gradients in every step.
        outer_optimizer: a function that makes a Keras optimizer, whose gradient is the averaged change: for DiLoCo
            `lambda: keras.optimizers.SGD(0.7, momentum=0.9, nesterov=True)`. A name or a configuration will do; None
            is plain averaging.
        warmup_steps: synchronous steps before the first local one (post-local SGD).
        inner_state: "keep": every replica goes on with its own momentum and the like; "average": they are averaged.
        compression: None, "bfloat16", "int8" or a compressor such as `tfdist.gradients.PowerSGD(rank=4)`, for the
            averaged change on the wire.
        fragments: parts of the variables that are averaged one after another.
        overlap_steps: local steps that go on while a fragment is averaged; 0 to wait for it.
        verify_equal: whether replicas compare what they averaged, by 8 bytes a variable.
        devices: of this worker, such as `["GPU:0", "GPU:1"]`; None for all GPUs, or the CPU where there are none.
        communication, communication_options, peer_timeout_seconds, heartbeat_timeout_seconds, start_timeout_seconds,
            stall_seconds: as in `MultiWorkerMirroredStrategy`.

    Raises:
        ValueError, TypeError: an option is wrong.
        ClusterError: the cluster's description is wrong.
        RuntimeError: TensorFlow has run operations before.

    Example:

        strategy = tfdist.LocalSGDStrategy(
            sync_every_steps=50, outer_optimizer=lambda: keras.optimizers.SGD(0.7, momentum=0.9, nesterov=True)
        )
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(dataset, epochs=10)
    """

    # Exchanges on a thread of their own may meet what steps reduce.
    collective_settings = CollectiveSettings(keeps_keys=False)

    def __init__(
        self,
        cluster: Cluster | tf.distribute.cluster_resolver.ClusterResolver | None = None,
        *,
        sync_every_steps: int | Literal["epoch"] | None = None,
        levels: Mapping[str, int] | None = None,
        outer_optimizer: Callable[[], Any] | keras.optimizers.Optimizer | Mapping[str, Any] | str | None = None,
        warmup_steps: int = 0,
        inner_state: Literal["keep", "average"] = "keep",
        compression: Literal["bfloat16", "int8"] | Compressor | None = None,
        fragments: int = 1,
        overlap_steps: int = 0,
        verify_equal: bool = True,
        devices: Sequence[str] | None = None,
        communication: Communication = "auto",
        communication_options: tf.distribute.experimental.CommunicationOptions | None = None,
        peer_timeout_seconds: float = 900.0,
        heartbeat_timeout_seconds: float = 30.0,
        start_timeout_seconds: float = 600.0,
        stall_seconds: float = 60.0,
    ) -> None:
        self._averaging_options = AveragingOptions(
            sync_every_steps=sync_every_steps,
            levels=levels,
            outer_optimizer=outer_optimizer,  # type: ignore[arg-type]
            warmup_steps=warmup_steps,
            inner_state=inner_state,
            compression=compression,
            fragments=fragments,
            overlap_steps=overlap_steps,
            verify_equal=verify_equal,
        )
        # With names by the order in which they were attached, which is the same on every worker.
        self._averagings: weakref.WeakKeyDictionary[LocalAveraging, str] = weakref.WeakKeyDictionary()
        self._averaging_names = map(str, itertools.count())
        self._found: list[LocalAveraging] = []
        with local_devices(devices):
            super().__init__(
                cluster,
                communication=communication,
                communication_options=communication_options,
                peer_timeout_seconds=peer_timeout_seconds,
                heartbeat_timeout_seconds=heartbeat_timeout_seconds,
                start_timeout_seconds=start_timeout_seconds,
                stall_seconds=stall_seconds,
            )

    @property
    def averaging_options(self) -> AveragingOptions:
        """When and how replicas average; assign others for the optimizers that are compiled from then on."""
        return self._averaging_options

    @averaging_options.setter
    def averaging_options(self, options: AveragingOptions) -> None:
        self._averaging_options = options

    def average(self) -> None:
        """Average at once what replicas have trained since the last averaging; call it on every worker.

        `fit`, `evaluate`, `predict` and saving do this by themselves; a callback that looks at weights in the middle
        of an epoch calls it, and a custom loop when it is at its end or has read a `tf.train.Checkpoint`.
        """
        with self.peers.explained():
            for averaging in list(self._averagings):
                averaging.average()

    replica_step = LocalStep

    def run(self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """As `tf.distribute.Strategy.run`, and a local step for every optimizer that `fn` applies.

        Losses are scaled as tf.distribute wants it, by the global batch; what is due is averaged after the step.

        Raises:
            ValueError: there is a warm-up, which needs to know the model, or overlap, which needs to know when a step
                has ended.
        """
        with self.collecting_averagings() as found:
            result = super().run(fn, args=args, kwargs=kwargs, options=options)
        averagings = list(dict.fromkeys(found))
        if any(averaging.options.warmup_steps for averaging in averagings):
            raise ValueError(
                "Warm-up steps are counted by model.fit() and train_on_batch(). Expected: warmup_steps=0 in a custom "
                f"loop. Received: warmup_steps={averagings[0].options.warmup_steps}. Override train_step, or train "
                "the first steps under MultiWorkerMirroredStrategy."
            )
        if any(averaging.options.overlap_steps for averaging in averagings):
            raise ValueError(
                "Averaging goes on beside the steps of model.fit(). Expected: overlap_steps=0 in a custom loop. "
                f"Received: overlap_steps={averagings[0].options.overlap_steps}. Override train_step, or leave it out."
            )
        for averaging in averagings:
            averaging.end_step()
        return result

    def restore_pending(self) -> None:
        """Take over what was read from a `tf.train.Checkpoint`."""
        for averaging in self._averagings:
            averaging.state.restore_pending()

    @contextlib.contextmanager
    def collecting_averagings(self) -> Iterator[list[LocalAveraging]]:
        """While a step is traced: the averagings of the optimizers that it uses, once for each replica."""
        outer, self._found = self._found, []
        try:
            yield self._found
        finally:
            self._found = outer

    # What Keras asks for, see _compat/hooks.py.

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """The function that Keras calls once an execution."""
        refuse_xla(model, self.beyond_xla)
        if kind == "predict":
            return averaged_predict_function(self, model)
        if kind == "test":
            return AveragedTestFunction(self, model, model.test_step, training=False)
        return LocalTrainFunction(self, model, model.train_step)

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """Averages at the end of epochs."""
        return [*super().fit_callbacks(data, steps_per_epoch), AverageAtEnds(self)]

    def check_before_build(self, model: Any, data: hooks.DataSummary | None) -> None:
        """Refuse what can't work, and workers that are not about to do the same."""
        if model.optimizer is not None:
            refuse_optimizer(model.optimizer)
            self.prepare_optimizer(model.optimizer)
        super().check_before_build(model, data)

    def prepare_optimizer(self, optimizer: Any) -> None:
        """Attach the averaging, so that files can be loaded into it."""
        if averaging_of(optimizer) is None and not is_outer(optimizer):
            averaging = LocalAveraging(optimizer, self, self._averaging_options)
            attach_averaging(optimizer, averaging, averaging.state, AveragingCheckpoint(averaging.state))
            self._averagings[averaging] = next(self._averaging_names)

    def accumulates(self, optimizer: Any) -> bool:
        """False: every batch is a local step."""
        return False

    def apply_gradients(self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Update) -> None:
        """Make a local step, or in the warm-up a synchronous one."""
        if is_outer(optimizer):
            update(gradients, variables)
            return
        self.prepare_optimizer(optimizer)
        averaging = averaging_of(optimizer)
        self._found.append(averaging)
        step = hooks.current_step()
        if isinstance(step, ReplicaStep) and not isinstance(step, LocalStep):
            update(all_reduce_gradients(gradients, share=current_share()), variables)
        else:
            averaging.apply_gradients(gradients, variables, update)

    def before_write(self, path: str) -> None:
        """Average, and gather what replicas have apart, so that the file holds all that training goes on from."""
        wanted = self._to_gather()
        if wanted and self.num_workers > 1:
            del wanted
            # What is out of use is collected at other times on other workers.
            gc.collect()
            wanted = self._to_gather()
        if self.num_workers == 1:
            together = list(wanted)
        else:
            positions = {name: str(int(averaging.optimizer.iterations)) for name, averaging in wanted.items()}
            together = self.save_together(path, positions) if wanted else []
        for name in together:
            wanted[name].average()
            wanted[name].state.hold()

    def _to_gather(self) -> dict[str, LocalAveraging]:
        """The averagings of which replicas have something that is not in the chief's file, by name."""
        return {
            name: averaging
            for averaging, name in self._averagings.items()
            if averaging.is_pending or averaging.keeps_replicas_apart
        }

    def _release_sums(self) -> None:
        super()._release_sums()
        for averaging in self._averagings:
            averaging.state.release()

    _saved_alone = "with what the chief has since the last averaging, and without the other replicas' optimizer state"

    def equal_variables(self, model: Any) -> list[Any]:
        """After an averaging: weights, but not the optimizer's variables, of which replicas may have their own."""
        return list(model.weights)

    def _model_facts(self, model: Any) -> dict[str, str]:
        averaging = None if model.optimizer is None else averaging_of(model.optimizer)
        options = self._averaging_options if averaging is None else averaging.options
        facts = {"averaging": options.described()}
        if averaging is not None and averaging.fragments and averaging.fragments[0].outer is not None:
            facts["outer optimizer"] = describe(averaging.fragments[0].outer.optimizer)
        return {**super()._model_facts(model), **facts}

    def check_before_steps(self, model: Any) -> None:
        """Refuse workers whose weights differ, which callbacks may have loaded."""
        self.average()
        super().check_before_steps(model)

    def _in_this_job(self, options: AccumulationOptions) -> AccumulationOptions:
        if micro_batches() > 1:
            raise ValueError(
                "Expected: an elastic job without --elastic_accumulation under LocalSGDStrategy, where a batch is a "
                f"local step of each replica. Received: {micro_batches()} micro-batches to a batch. Leave it out."
            )
        return options

    def _accumulation_changed(self) -> None:
        raise ValueError(
            f"Expected: gradient_accumulation_steps=1 under LocalSGDStrategy. Received: {self._accumulation}. "
            "Use larger batches, or more local steps."
        )


class AverageAtEnds(keras.callbacks.Callback):
    """Gives everyone the averaged weights before the user's callbacks look at an epoch's end.

    Args:
        strategy: a LocalSGDStrategy.
    """

    def __init__(self, strategy: LocalSGDStrategy) -> None:
        super().__init__()
        self._strategy = strategy

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras has reset the metrics."""
        function = self.model.train_function
        if isinstance(function, LocalTrainFunction):
            function.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validation, which comes before, has averaged already."""
        self._strategy.average()


def refuse_optimizer(optimizer: Any) -> None:
    """What replicas can't do each by itself.

    Raises:
        ValueError: the optimizer scales its loss by what it has seen, or accumulates gradients.
    """
    if any(isinstance(one, keras.optimizers.LossScaleOptimizer) for one in (optimizer, *parts_of(optimizer))):
        raise ValueError(
            "A dynamic loss scale makes replicas leave out different steps. Expected: an optimizer without it under "
            f"LocalSGDStrategy. Received: optimizer={type(optimizer).__name__}. Use the policy 'mixed_bfloat16', which "
            "needs no loss scale, in place of 'mixed_float16'."
        )
    if accumulation_of(optimizer) is not None or gradient_accumulation_steps(optimizer):
        raise ValueError(
            "Expected: an optimizer that makes a step of every batch under LocalSGDStrategy. Received: optimizer="
            f"{type(optimizer).__name__} with gradient accumulation. Use larger batches, or more local steps."
        )
