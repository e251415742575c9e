"""Pipelines side by side: where their copies and operations are, what is sent, when stages are at work.
Run as a program: `python -m tests.strategies.programs.pipelines FOLDER [TEST ...]`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfdist
from tests.helpers.setups import labels
from tests.strategies.programs.pipeline import DEVICES, ROWS, SIDE_BY_SIDE, VECTORS
from tests.strategies.programs.pipeline_parts import build, fit, operations, run_tests, stage_of

#: A width of its own for each layer, so that a shape says whose it is; two layers a stage.
WIDTHS = (8, 9, 10, 3)


def make(*, dropout: float = 0.0) -> keras.Model:
    hidden = [layers.Dense(units, activation="tanh", name=f"layer{units}") for units in WIDTHS]
    return keras.Sequential([keras.Input((6,)), *hidden[:2], layers.Dropout(dropout, seed=3), *hidden[2:]])


def strategy(micro_batches: int = 2, **options: Any) -> tfdist.PipelineStages:
    return tfdist.PipelineStages(SIDE_BY_SIDE, micro_batches=micro_batches, boundaries=["layer10"], **options)


def copies_of(model: keras.Model) -> list[tuple[str, Any]]:
    """Path and copies of what the model and its optimizer keep, what adds up gradients too."""
    kept = [(one.path, one.value) for one in [*model.variables, *model.optimizer.variables]]
    slots = model.optimizer._tfdist_accumulation.state.slots
    kept += [(f"sum {index}", variable) for index, slot in slots.items() for variable in slot.variables]
    return [(path, variable.values) for path, variable in kept]


def test_copies_are_on_each_pipelines_devices_and_equal_to_the_bit() -> None:
    model = build(strategy(), lambda: make(dropout=0.5), lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1))
    fit(model, epochs=2)
    placed = 0
    for path, copies in copies_of(model):
        np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy(), err_msg=path)
        if copies[0].shape.rank:
            stage = next(
                (index for index, widths in enumerate([(8, 9), (10, 3)]) if copies[0].shape[-1] in widths), None
            )
            expected = [row[stage] for row in SIDE_BY_SIDE] if stage is not None else ["CPU:0", "CPU:0"]
            assert [copy.device[-5:] for copy in copies] == expected, (path, [copy.device for copy in copies])
            placed += stage is not None
    assert placed == 8 * 4, placed  # kernels and biases; Adam's two slots; the sums


def test_a_pipeline_computes_on_its_own_devices_and_sends_each_gradient_once() -> None:
    micro_batches = 3
    model = build(strategy(micro_batches), make)
    fit(model)
    found = operations(model)
    for pipeline, width in itertools.product(range(2), WIDTHS):
        mine = [op for op in found if op.type == "MatMul" and f"layer{width}" in op.name]
        mine = [op for op in mine if stage_of(op) // 2 == pipeline]
        # Of each micro-batch: forward, the kernel's gradient, and but for the first layer the input's.
        assert len(mine) == micro_batches * (2 if width == WIDTHS[0] else 3), [op.name for op in mine]
        assert {stage_of(op) % 2 for op in mine} == {WIDTHS.index(width) // 2}, [(op.name, op.device) for op in mine]
    sums = [op for op in found if op.type == "AddN" and op.outputs[0].shape.rank == 2]
    shapes = [tuple(op.outputs[0].shape) for op in sums]
    assert sorted(shapes) == sorted(zip((6, *WIDTHS), WIDTHS, strict=False)), shapes


def test_predictions_and_evaluations_are_shared_by_the_pipelines() -> None:
    model, plain = build(strategy(), make), build(tfdist.OneDeviceStrategy("CPU:0"), make)
    for rows in (ROWS, 1):  # one row is less than there are pipelines
        data = VECTORS[:rows], labels(ROWS)[:rows]
        expected = [plain.predict(data[0], batch_size=7, verbose=0), plain.evaluate(*data, batch_size=7, verbose=0)]
        found = [model.predict(data[0], batch_size=7, verbose=0), model.evaluate(*data, batch_size=7, verbose=0)]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)
    traced = [function.graph for function in model.test_function._one_step._list_all_concrete_functions()]
    products = [op for graph in traced for op in graph.get_operations() if op.type == "MatMul"]
    assert {stage_of(op) for op in products} == {0, 1, 2, 3}, [(op.name, op.device) for op in products]


def test_statistics_are_of_micro_batches_averaged_over_pipelines() -> None:
    """Of 7 rows the first pipeline has 3, in micro-batches of 1 and 2, the second one 4, in 2 and 2."""

    def normalized() -> keras.Model:
        whole = layers.Dense(3, kernel_initializer="identity", trainable=False)
        return keras.Sequential([keras.Input((3,)), whole, layers.BatchNormalization(momentum=0.8), layers.Dense(3)])

    two = tfdist.PipelineStages(SIDE_BY_SIDE, micro_batches=2)
    model, rows = build(two, normalized), VECTORS[:7, :3]
    model.train_on_batch(rows, labels(7))
    expected = np.zeros(3)
    for parts in ((rows[0:1], rows[3:5]), (rows[1:3], rows[5:7])):
        means = [len(part) * (0.8 * expected + 0.2 * part.mean(0)) for part in parts]
        expected = sum(means) / sum(len(part) for part in parts)
    np.testing.assert_allclose(model.layers[1].moving_mean, expected, rtol=1e-6, atol=1e-7)


def test_a_loop_of_ones_own() -> None:
    """Each pipeline gets its rows; losses of Keras add up to the batch's mean."""

    def trained(strategy: Any) -> np.ndarray:
        model = build(strategy, make, lambda: keras.optimizers.SGD(0.1, momentum=0.9))
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def step(batch: Any) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = loss_of(batch[1], model(batch[0], training=True))
            model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            return loss

        @tf.function
        def train(batch: Any) -> tf.Tensor:
            return strategy.reduce("sum", strategy.run(step, args=(batch,)), axis=None)

        data = tf.data.Dataset.from_tensor_slices((VECTORS, labels(ROWS))).batch(7)
        losses = [float(train(batch)) for batch in strategy.experimental_distribute_dataset(data)]
        return np.concatenate([losses, *(one.ravel() for one in model.get_weights())])

    expected = trained(tfdist.OneDeviceStrategy("CPU:0"))
    np.testing.assert_allclose(trained(strategy()), expected, rtol=2e-6, atol=2e-6)


def test_a_checkpoint_and_files_go_to_one_pipeline_and_back(folder: Path) -> None:
    def one_pipeline() -> Any:
        return tfdist.PipelineStages(DEVICES[:2], micro_batches=4)

    model = build(strategy(), make)
    fit(model)
    expected = model.predict(VECTORS, verbose=0)
    model.save(folder / "two.keras")
    model.export(folder / "served", verbose=False)
    np.savez(folder / "served.npz", rows=VECTORS, expected=expected)  # for programs/served.py
    plain = keras.models.load_model(folder / "two.keras")
    np.testing.assert_allclose(plain.predict(VECTORS, verbose=0), expected, atol=1e-6)
    after = []
    for target in (one_pipeline(), strategy(3)):
        with target.scope():
            loaded = keras.models.load_model(folder / "two.keras")
        after.append(fit(loaded).history["loss"])
    np.testing.assert_allclose(after[0], after[1], rtol=2e-6)


def test_the_timeline_is_that_of_the_schedule() -> None:
    for schedule, grid in (("1f1b", SIDE_BY_SIDE), ("gpipe", DEVICES[:2])):
        timed = tfdist.PipelineStages(
            grid, micro_batches=3, boundaries=["layer10"], schedule=schedule, record_times=True
        )
        model = build(timed, make)
        model.train_on_batch(VECTORS, labels(ROWS))
        model.evaluate(VECTORS, labels(ROWS), verbose=0)  # not a step of micro-batches
        seconds = timed.timeline().seconds
        assert seconds.shape == (len(grid) if grid is SIDE_BY_SIDE else 1, 2, 2, 3, 2), seconds.shape
        assert np.isfinite(seconds).all() and (seconds[..., 0] <= seconds[..., 1]).all(), seconds
        forward, backward = seconds[:, :, 0], seconds[:, :, 1]
        clocks = [op for op in operations(model) if op.type == "Timestamp"]
        assert len(clocks) == seconds.size, len(clocks)
        assert not any(before.type == "Timestamp" for op in clocks for before in op.control_inputs), "they wait in turn"
        # Data go down the stages and back, and a stage takes one micro-batch after the other.
        assert (forward[:, 0, :, 1] <= forward[:, 1, :, 0]).all() and (
            forward[:, 1, :, 1] <= backward[:, 1, :, 0]
        ).all()
        assert (backward[:, 1, :, 1] <= backward[:, 0, :, 0]).all(), seconds
        assert (seconds[:, :, :, :-1, 1] <= seconds[:, :, :, 1:, 0]).all(), seconds
        if schedule == "gpipe":
            assert (forward[:, :, -1, 1] <= backward[:, :, 0, 0]).all(), seconds
        else:
            assert (backward[:, 1, :-1, 1] <= forward[:, 1, 1:, 0]).all(), seconds
        assert len(str(timed.timeline()).splitlines()) == 2 * seconds.shape[0] + 1


if __name__ == "__main__":
    run_tests(globals())
