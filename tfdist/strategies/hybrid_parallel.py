"""HybridParallelStrategy: models that are split over a mesh of devices, by tensor, by FSDP and by rows of the batch.

The devices are those of one process or of several, of which each runs the same program (strategies/mesh_processes.py).

The way of one batch: parallel/reading.py splits its rows over the batch axis of the mesh; Keras' train step is traced
once, for the whole batch and whole variables, and DTensor makes of it what each device does and what they exchange;
gradients are brought into the layout in which their variables are kept, so that clipping, the finite check and the
update see global gradients, each device its part of them (strategies/hybrid_parallel_steps.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.experimental import dtensor

from tfdist import _compat
from tfdist._compat import hooks
from tfdist._compat import tensorflow as tf_compat
from tfdist._compat.keras_optimizers import accumulation_of, build_if_needed, gradient_accumulation_steps
from tfdist._compat.keras_trainer import flatten_layers
from tfdist._compat.tensorflow_dtensor import MeshExtended, switch_off_combining
from tfdist._compat.tensorflow_dtensor_variables import as_kept
from tfdist.cluster import Cluster, resolve
from tfdist.data.sharding import ShardOptions, share_as
from tfdist.gradients import AccumulationOptions, Steps
from tfdist.layouts.automatic import AutomaticRules
from tfdist.layouts.devices import mesh_devices
from tfdist.layouts.memory import MemoryReport
from tfdist.layouts.mesh_axes import mesh_axes
from tfdist.layouts.placement import Placements
from tfdist.layouts.rules import LayoutMap, LayoutRules
from tfdist.log import logger
from tfdist.parallel import reading
from tfdist.parallel.batches import Batches
from tfdist.parallel.gradients import dense, in_layouts_of
from tfdist.parallel.layers import treat_layers
from tfdist.parallel.meshes import make_mesh, share_of_batches
from tfdist.parallel.parts import MeshParts
from tfdist.parallel.report import memory_report
from tfdist.parallel.variables import VariableMaker, slots_of
from tfdist.strategies.accumulating import AccumulatingStrategy
from tfdist.strategies.agreement import data_facts, model_facts
from tfdist.strategies.checks import refuse_foreign_optimizer, refuse_xla
from tfdist.strategies.hybrid_parallel_steps import MeshStepFunction, on_all, predict_function
from tfdist.strategies.mesh_processes import TimeOuts, connect, place_in
from tfdist.strategies.mesh_values import check_equal_parts, held_on_host
from tfdist.strategies.start_up import as_cluster
from tfdist.strategies.step_report import step_report
from tfdist.strategies.workers import Workers

#: How many of a model's variables a warning names.
_PATHS = 20


class HybridParallelStrategy(AccumulatingStrategy, Workers, hooks.KerasHooks, tf.distribute.Strategy):
    """Tensor parallelism, FSDP and data parallelism on one mesh of devices, for unmodified Keras 3 models.

    It is one program that sees whole batches and whole variables, so `num_replicas_in_sync` is 1 and `batch_size` is
    the global one. Weights, losses and metrics are those of one device, to float rounding.

    In a job of several workers (`tfdist launch`, or TF_CONFIG set by the scheduler) each runs the same script, and the
    mesh is over the devices of all of them, worker by worker. Whoever reads a variable that has parts on other workers
    does so together with them: `get_weights` and `save` are to be called on every worker, and the chief writes.

    Args:
        mesh: sizes of the named axes, such as `{"batch": 2, "model": 4}`, in the order in which devices fill it, the
            last one fastest; or a `keras.distribution.DeviceMesh`.
        layout_map: how variables are split: by regular expressions that match Keras' whole paths, a tuple with the name
            of an axis or None for each dimension; or a `keras.distribution.LayoutMap`. Variables that no key
            matches are on every device. "auto" goes by names and shapes (`tfdist.layouts.auto`). None for data
            parallelism alone, or FSDP.
        zero_stage: 0; 1 to split the slots of optimizers over the batch axis as well; 3 to split parameters too, which
            are then gathered as layers use them (FSDP; Rajbhandari et al., "ZeRO", 2020).
        devices: such as `["GPU:0", "GPU:1"]`, of this process, or of all workers in their order; None for the GPUs, or
            the logical CPUs where there are none.
        batch_axis: the axis of the mesh over which the rows of a batch are split.
        gradient_accumulation_steps: batches (micro-batches) to an optimizer step, a function of optimizer steps that
            gives them, or `tfdist.gradients.AccumulationOptions`. Sums of gradients are laid out as slots.
        cluster: a `tfdist.cluster.Cluster`, a `tf.distribute` ClusterResolver, or None for `resolve()`.
        peer_timeout_seconds, heartbeat_timeout_seconds, start_timeout_seconds, stall_seconds: as in
            `MultiWorkerMirroredStrategy`.

    Raises:
        ValueError: too few devices for the mesh, a layout with an unknown axis, a stage that isn't there, or batches
            that are to be cut.
        ClusterError: the cluster's description is wrong, this task's port is taken, or a worker doesn't come.
        WorkersDisagreeError: workers have another mesh, other layouts, versions or another script.
        RuntimeError: there are several workers, and TensorFlow has run operations before.

    Example:

        strategy = tfdist.HybridParallelStrategy(
            mesh={"batch": 2, "model": 2}, layout_map={".*up/kernel": (None, "model"), ".*down/kernel": ("model", None)}
        )
        with strategy.scope():
            model = build_model()
            model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(dataset, epochs=10)
    """

    def __init__(
        self,
        mesh: Any,
        layout_map: LayoutMap | str | None = None,
        *,
        zero_stage: int = 0,
        devices: Sequence[str] | None = None,
        batch_axis: str = "batch",
        gradient_accumulation_steps: Steps | AccumulationOptions = 1,
        cluster: Cluster | tf.distribute.cluster_resolver.ClusterResolver | None = None,
        peer_timeout_seconds: float = 900.0,
        heartbeat_timeout_seconds: float = 30.0,
        start_timeout_seconds: float = 600.0,
        stall_seconds: float = 60.0,
    ) -> None:
        self._init_accumulation(gradient_accumulation_steps)
        seconds = TimeOuts(peer_timeout_seconds, heartbeat_timeout_seconds, start_timeout_seconds, stall_seconds)
        self.mesh_axes = mesh_axes(mesh, batch_axis)
        is_automatic = isinstance(layout_map, str) and layout_map == "auto"
        self._rules = AutomaticRules(self.mesh_axes) if is_automatic else LayoutRules(layout_map, self.mesh_axes)
        self._placements = Placements(self.mesh_axes, self._rules, zero_stage)
        place = as_cluster(resolve() if cluster is None else cluster)
        names = mesh_devices(devices, self.mesh_axes, *place_in(place))
        switch_off_combining()
        _compat.install()
        facts = self._facts(names)
        self._processes = connect(place, names[0].partition(":")[0], facts, seconds)
        self.peers = self._processes.peers
        self.mesh = make_mesh(self.mesh_axes, names, job=self._processes.job, index=self._processes.index)
        self._variables = VariableMaker(self.mesh, self._placements)
        self._batches = Batches(self.mesh, self.mesh_axes)
        super().__init__(MeshExtended(self, tuple(names)))
        self._init_workers(peer_timeout_seconds)
        # Workers that meet for the first time have compared them already.
        self.agree("HybridParallelStrategy()", facts)
        if self.num_workers > 1:
            share_as(self.share)

    def _facts(self, names: list[str]) -> dict[str, str]:
        return {
            "mesh": str(self.mesh_axes.sizes),
            "axis of the mesh that splits batches": self.mesh_axes.batch_axis,
            "layouts": str(self._rules),
            "ZeRO stage": str(self.zero_stage),
            "kind and number of devices": f"{len(names)} {names[0].partition(':')[0]}s",
        }

    @property
    def num_workers(self) -> int:
        """Processes that share the mesh."""
        return self._processes.count

    @property
    def worker_index(self) -> int:
        """This process among them, the chief is 0."""
        return self._processes.index

    @property
    def share(self) -> ShardOptions:
        """Which rows of each batch this process' devices hold; the same on processes that hold the same."""
        return share_of_batches(self.mesh_axes, self.mesh)

    @property
    def zero_stage(self) -> int:
        """0, 1 or 3."""
        return self._placements.zero_stage

    def summary(self, model: Any, print_fn: Callable[[str], Any] | None = print) -> MemoryReport:
        """Variables of a built model, their layouts, and the bytes that they take on each device.

        Args:
            model: made in the scope; slots are counted if it is compiled.
            print_fn: what the table is given to; None for nothing.

        Example:
            >>> report = strategy.summary(model)
            >>> report.parameter_bytes, report.slot_bytes
        """
        with self.scope():
            if model.optimizer is not None and model.built:
                build_if_needed(model.optimizer, model.trainable_variables)
        report = memory_report(model, self.mesh_axes, self._placements)
        if print_fn is not None:
            print_fn(str(report))
        return report

    # What tf.distribute asks for, see _compat/tensorflow_dtensor.py.

    def create_variable(self, initial_value: Any, like: Any, options: dict[str, Any]) -> Any:
        """A variable on the mesh."""
        return self._variables.make(initial_value, like, options)

    def distribute(self, dataset: tf.data.Dataset) -> Any:
        """Batches on the mesh; each process reads the rows of its own devices."""
        if not isinstance(dataset, tf.data.Dataset):
            return dataset
        return reading.on_mesh(dataset, self._batches, self.share, processes=self.num_workers)

    def on_mesh(self, value: Any) -> Any:
        """A batch on the mesh; in a function it is there already."""
        return value if tf.inside_function() else self._batches.on_mesh(value)

    def run(self, fn: Callable[..., Any], args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
        """As `tf.distribute.Strategy.run`, in the one replica."""
        self.peers.note_own_loop()
        return super().run(fn, args=args, kwargs=kwargs, options=options)

    def run_keras_step(self, step: Callable[[Any], Any], batch: Any) -> Any:
        """Call one of Keras' steps in the one replica."""
        return super().run(step, args=(batch,))

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        """As `tf.distribute.Strategy.reduce`, of the one replica."""
        if axis is None:
            return value
        name = getattr(reduce_op, "name", reduce_op)
        return (tf.reduce_mean if name == "MEAN" else tf.reduce_sum)(value, axis)

    def gather(self, value: Any, axis: int) -> Any:
        """The value, which has all rows."""
        return value

    #: What checkpoints ask for, see checkpoint/shards.py.
    variable_parts = MeshParts()

    # What Keras asks for, see _compat/hooks.py.

    #: Keras' own accumulation sees global gradients, and its accumulators are laid out as slots.
    accumulates_for_keras = False
    splits_operations = True

    def whole(self, value: Any) -> Any:
        """A tensor, all of it on every device."""
        return on_all(self.mesh, value)

    def call_on_mesh(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function eagerly on the mesh; every device has all of what it returns."""
        args, kwargs = self._batches.on_mesh((args, kwargs))
        with dtensor.default_mesh(self.mesh):
            return tf.nest.map_structure(self.whole, function(*args, **kwargs))

    def keras_function(self, model: Any, kind: str) -> Callable[[Any], Any]:
        """The function that Keras calls once an execution."""
        refuse_xla(model, "steps that DTensor splits")
        treat_layers(flatten_layers(model), self._batches)
        if kind == "predict":
            return predict_function(self, model)
        training = kind == "train"
        return MeshStepFunction(self, model, model.train_step if training else model.test_step, training=training)

    def fit_callbacks(self, data: Any, steps_per_epoch: int | None) -> list[Any]:
        """What tells a launcher of each step, and what accumulation needs."""
        return [*step_report(), *super().fit_callbacks(data, steps_per_epoch)]

    def around_fit(self) -> contextlib.AbstractContextManager[None]:
        """Errors of any operation in it are explained, such as those of reading metrics."""
        return self.peers.explained()

    def end_steps(self) -> None:
        """The other workers must be here too."""
        self.peers.end_round()

    def saving(self, model: Any, path: str) -> contextlib.AbstractContextManager[None]:
        """The chief writes; all gather for it what has parts on other workers."""
        return held_on_host(self, model, path)

    def check_before_build(self, model: Any, data: hooks.DataSummary | None) -> None:
        """Refuse what can't work under this strategy.

        Raises:
            ValueError: XLA is asked for, or the optimizer was made elsewhere.
            WorkersDisagreeError: workers are not about to do the same.
        """
        refuse_xla(model, "steps that DTensor splits")
        refuse_foreign_optimizer(self, model)
        if data is not None:
            self.agree("fit" if data.training else "evaluate", {**data_facts(data), **self._model_facts(model)})

    def check_before_predict(self, model: Any) -> None:
        """Refuse a `predict` that other workers take no part in."""
        self.agree("predict", self._model_facts(model))

    def _model_facts(self, model: Any) -> dict[str, str]:
        return {**model_facts(model, self._accumulation), "global seed": str(tf_compat.global_seed())}

    def check_before_steps(self, model: Any) -> None:
        """Refuse workers whose weights differ where they should not, and say which rules had no effect."""
        if self.num_workers > 1:
            check_equal_parts(self, model)
        paths = [variable.path for variable in model.trainable_variables]
        unused = self._rules.take_unused()
        if unused:
            logger.warning(
                "layout_map: no variable has a path that %s matches as a whole, so nothing is split by it. "
                "Received: %s%s.",
                *(", ".join(map(repr, unused)), ", ".join(paths[:_PATHS]), " ..." if len(paths) > _PATHS else ""),
            )

    def split_batch(self, batch: Any) -> Any:
        """A batch on the mesh."""
        return self._batches.on_mesh(batch)

    def is_split(self, batch: Any) -> bool:
        """Whether a batch on the mesh is split by its rows."""
        return self._batches.is_split(batch)

    def computing_on(self, batch: Any) -> contextlib.AbstractContextManager[None]:
        """What a function of this batch is traced in."""
        return self._batches.computing_on(batch)

    def beside(self, variable: Any) -> contextlib.AbstractContextManager[Any]:
        """Sums of gradients are laid out as slots."""
        return slots_of(variable)

    def _in_this_job(self, options: AccumulationOptions) -> AccumulationOptions:
        if options.splits > 1:
            raise ValueError(
                "A step can't cut batches that devices share. Expected: AccumulationOptions with splits=1 under "
                f"HybridParallelStrategy. Received: splits={options.splits}. Make smaller batches, and more of them an "
                "optimizer step: AccumulationOptions(steps=...)."
            )
        return options

    def options_of(self, optimizer: Any) -> AccumulationOptions:
        """How an optimizer accumulates; what is set on the optimizer is left to Keras.

        Raises:
            ValueError: it is set on the strategy too.
        """
        steps = None if optimizer is None else gradient_accumulation_steps(optimizer)
        if steps is not None and not self._accumulation.is_trivial:
            raise ValueError(
                "Gradient accumulation is asked for twice. Expected: one of the two. Received: "
                f"gradient_accumulation_steps={self._accumulation.steps!r} on the strategy and "
                f"gradient_accumulation_steps={steps} on the optimizer {optimizer.name!r}. Remove it from the "
                "optimizer; the strategy weighs micro-batches by their rows."
            )
        return self._accumulation

    def apply_gradients(
        self, optimizer: Any, gradients: list[Any], variables: list[Any], update: Callable[[list[Any], list[Any]], None]
    ) -> None:
        """Gradients in the layouts in which slots are kept; they are global already."""

        def update_as_kept(gradients: list[Any], variables: list[Any]) -> None:
            with as_kept():
                update(gradients, variables)

        self.prepare_optimizer(optimizer)
        accumulation = accumulation_of(optimizer)
        if accumulation is None:
            update_as_kept(in_layouts_of(gradients, variables, self._placements), variables)
            return
        gradients = in_layouts_of(dense(gradients, variables, optimizer), variables, self._placements)
        accumulation.apply_gradients(optimizer, gradients, variables, update_as_kept)
