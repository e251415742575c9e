"""Compressed gradients against the same steps in NumPy, on two devices of one process and on two workers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

import tfdist
from tests.gradients.programs.compression import COMPRESSORS, FEW, NOT_FINITE, REPLICAS, SHAPES, STEPS, gradients
from tests.helpers.cluster_runner import run_python
from tests.helpers.setups import WORKERS
from tfdist.gradients import Cast, NoCompression, PowerSGD, Quantize, TopK
from tfdist.strategies.compressing import as_compressor

#: Float32 rounding of products of matrices in another order, after six steps.
TOLERANCE = 1e-6
#: A number that NumPy rounds to the other of two neighbours, which are 2^-8 of it apart, since it differs by float32
#: rounding: factors are about 1.
TOLERANCES = {"power in 16 bits": 2**-8}
LARGE = (0, 1)

# Fifteen functions are compiled one after another, on a busy machine.
pytestmark = pytest.mark.timeout(900)

Values = list[np.ndarray]
#: Of what each replica has of one variable, and a place for its states: the sum.
Simulation = Callable[[int, Values, dict[str, Any]], np.ndarray]


def run(setup: str, folder: Path, *options: str) -> list[dict[str, Any]]:
    """What each worker has kept."""
    arguments = ["-m", "tests.gradients.programs.compression", setup, str(folder), *options]
    run_python(arguments, workers=WORKERS[setup], logs=folder / "logs", timeout_seconds=800)
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pickle"))]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run("workers2", tmp_path_factory.mktemp("workers2"))


def owed(state: dict[str, Any], values: Values, name: str = "error") -> Values:
    return [value + state.get(name, [0.0] * REPLICAS)[r] for r, value in enumerate(values)]


def cast(dtype: Any) -> Simulation:
    return lambda step, values, state: sum(value.astype(dtype).astype("float32") for value in values)


def power(rank: int, start: int = 0, dtype: Any = np.float64) -> Simulation:
    def said(value: np.ndarray) -> np.ndarray:
        return value.astype(dtype).astype("float64")

    def simulate(step: int, values: Values, state: dict[str, Any]) -> np.ndarray:
        if step < start:
            return sum(values)
        matrices = owed(state, [value.reshape(-1, value.shape[-1]) for value in values])
        factor = state.get("factor")
        if factor is None:
            random = np.random.Generator(np.random.PCG64(state["index"]))
            factor = random.standard_normal((values[0].shape[-1], rank), "float32")
        basis, _ = np.linalg.qr(sum(said(m @ factor) for m in matrices))
        factors = [said(m.T @ basis) for m in matrices]
        state["factor"] = sum(factors)
        state["error"] = [m - basis @ own.T for m, own in zip(matrices, factors, strict=True)]
        return (basis @ state["factor"].T).reshape(values[0].shape)

    return simulate


def top(fraction: Callable[[int], float], momentum: float = 0.0) -> Simulation:
    def simulate(step: int, values: Values, state: dict[str, Any]) -> np.ndarray:
        shape = values[0].shape
        velocity = [momentum * one for one in state.get("velocity", [0.0] * REPLICAS)]
        velocity = [one + value.ravel() for one, value in zip(velocity, values, strict=True)]
        debts = owed(state, velocity)
        total = np.zeros(debts[0].size)
        for debt, moved in zip(debts, velocity, strict=True):
            largest = np.argsort(-np.abs(debt), kind="stable")[: round(fraction(step) * debt.size)]
            total[largest] += debt[largest]
            debt[largest] = moved[largest] = 0
        state["error"], state["velocity"] = debts, velocity
        return total.reshape(shape)

    return simulate


def runs(value: np.ndarray) -> Values:
    """Of even width, at most 2,048."""
    count = -(-value.size // 2048)
    width = -(-value.size // count)
    return [value.ravel()[begin : begin + width] for begin in range(0, value.size, width)]


def rounded(run: np.ndarray, bits: int) -> np.ndarray:
    if bits == 1:
        above = run >= 0
        return np.where(above, run[above].mean() if above.any() else 0, run[~above].mean() if (~above).any() else 0)
    scale = np.float32(np.abs(run).max()) / np.float32(2 ** (bits - 1) - 1)
    return np.round(run / scale) * scale


def quantized(bits: int) -> Simulation:
    def simulate(step: int, values: Values, state: dict[str, Any]) -> np.ndarray:
        debts = owed(state, values)
        said = [np.concatenate([rounded(run, bits) for run in runs(d)]).reshape(d.shape) for d in debts]
        state["error"] = [debt - one for debt, one in zip(debts, said, strict=True)]
        return sum(said)

    return simulate


SIMULATIONS: dict[str, Simulation] = {
    "bfloat16": cast(ml_dtypes.bfloat16),
    "float16": cast(np.float16),
    "power": power(3),
    "power later": power(2, start=2),
    "power in 16 bits": power(3, dtype=ml_dtypes.bfloat16),
    "top": top(lambda step: 0.05),
    "top with momentum": top(lambda step: 0.05, 0.9),
    "top warmed up": top(lambda step: (0.25, 0.25, 0.0625, 0.0625, 0.05, 0.05)[step]),
    "8 bits": quantized(8),
    "4 bits": quantized(4),
    "1 bit": quantized(1),
}


def weights_after(
    name: str, *, steps: int = STEPS, given: Any = gradients, momentum: float = 0.0
) -> tuple[list[Values], list[dict[str, Any]]]:
    """Weights after each of the steps, which begin at 0 and fall by the sums; and the states at the end."""
    weights: Values = [np.zeros(shape) for shape in SHAPES]
    states: list[dict[str, Any]] = [{"index": index} for index in range(len(SHAPES))]
    after, velocity = [], [np.zeros(shape) for shape in SHAPES]
    for step in range(steps):
        own = [given(step, replica) for replica in range(REPLICAS)]
        for place in range(len(SHAPES)):
            values = [one[place] for one in own]
            if place in LARGE:
                total = SIMULATIONS[name](step, values, states[place])
            else:
                total = velocity[place] = momentum * velocity[place] + sum(values)
            weights[place] = weights[place] - total
        after.append([one.copy() for one in weights])
    return after, states


def assert_equal(found: list[Values], expected: list[Values], atol: float = TOLERANCE) -> None:
    for step, (one, other) in enumerate(zip(found, expected, strict=True)):
        for place, (array, wanted) in enumerate(zip(one, other, strict=True)):
            np.testing.assert_allclose(array, wanted, atol=atol, err_msg=f"step {step}, variable {place}")


def assert_as_in_numpy(found: list[dict[str, Any]], name: str) -> None:
    """Weights after each step, and what the replicas owe at the end."""
    expected, states = weights_after(name, momentum=0.9 if name == "top with momentum" else 0.0)
    atol = TOLERANCES.get(name, TOLERANCE)
    assert_equal(found[0][name]["weights"], expected, atol)
    kept = [task[name]["states"][-1] for task in found]
    for place in LARGE if "0_error" in kept[0] else ():
        copies = [copy for task in kept for copy in task[f"{place}_error"]]
        assert len(copies) == REPLICAS
        for copy, wanted in zip(copies, states[place]["error"], strict=True):
            np.testing.assert_allclose(copy, wanted.reshape(copy.shape), atol=atol)
            assert np.abs(wanted).max() > 1e-3, "or this shows nothing"


@pytest.mark.cluster
@pytest.mark.parametrize("name", list(COMPRESSORS))
def test_weights_and_errors_as_in_numpy(found, name: str) -> None:
    assert_as_in_numpy(found, name)


@pytest.mark.unit
def test_two_devices_of_one_process_as_in_numpy(tmp_path: Path) -> None:
    tasks = run("mirrored2", tmp_path, "--few")
    assert set(tasks[0]) == set(FEW)
    for name in FEW:
        assert_as_in_numpy(tasks, name)


@pytest.mark.cluster
@pytest.mark.parametrize("name", [name for name in COMPRESSORS if not isinstance(COMPRESSORS[name], Cast)])
def test_nothing_is_lost(found, name: str) -> None:
    """What was applied and what replicas still owe is what they have had; momentum aside."""
    had = [sum(gradients(step, r)[place] for step in range(STEPS) for r in range(REPLICAS)) for place in LARGE]
    for place, total in zip(LARGE, had, strict=True):
        owes = [copy for task in found for copy in task[name]["states"][-1][f"{place}_error"]]
        applied = -found[0][name]["weights"][-1][place]
        if name != "top with momentum":
            np.testing.assert_allclose(applied + sum(owes).reshape(total.shape), total, atol=5 * TOLERANCE)


@pytest.mark.cluster
def test_factors_in_16_bits_are_half_the_bytes(found) -> None:
    """But for those of what is sent as it is, and of the flag that says whether all is finite."""
    whole = 4 * sum(int(np.prod(shape)) for place, shape in enumerate(SHAPES) if place not in LARGE) + 4
    assert found[0]["power in 16 bits"]["sent"] - whole == (found[0]["power"]["sent"] - whole) // 2


@pytest.mark.cluster
def test_all_workers_have_the_same_bits(found) -> None:
    for name in found[0]:
        for task in found[1:]:
            for one, other in zip(found[0][name]["weights"], task[name]["weights"], strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), name


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["power", "top", "8 bits"])
def test_a_step_that_is_not_finite_leaves_states_alone(found, name: str) -> None:
    """Steps 2 and 4 are left out, and the loss scale, which doubles and halves, is in no error."""
    result = found[-1][f"{name}, scaled"]  # the replica with the inf is the last one
    finite = [step for step in range(STEPS) if step not in NOT_FINITE]
    for step in NOT_FINITE:
        before, after = result["states"][step - 1], result["states"][step]
        assert before.keys() == after.keys()
        for key in before:
            assert all(np.array_equal(a, b) for a, b in zip(before[key], after[key], strict=True)), (step, key)
        assert all(
            np.array_equal(a, b) for a, b in zip(result["weights"][step - 1], result["weights"][step], strict=True)
        )
    expected, _ = weights_after(name, steps=len(finite), given=lambda step, r: gradients(finite[step], r))
    assert_equal([result["weights"][step] for step in finite], expected)


@pytest.mark.cluster
def test_micro_batches_are_added_up_before_they_are_compressed(found) -> None:
    """Three of them a step, each of which counts alike; once for all of them."""

    def means(step: int, replica: int) -> Values:
        three = [gradients(3 * step + k, replica) for k in range(3)]
        return [sum(parts) / 3 for parts in zip(*three, strict=True)]

    expected, _ = weights_after("power", steps=2, given=means)
    assert_equal([found[0]["power, accumulated"]["weights"][step] for step in (2, 5)], expected)


@pytest.mark.cluster
def test_an_update_that_a_rule_skips_leaves_states_alone(found) -> None:
    states = found[0]["power, skipped"]["states"]
    assert not any(np.any(copy) for copy in states[-1]["0_error"])
    assert not any(np.any(weights) for weights in found[0]["power, skipped"]["weights"][-1])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PowerSGD(rank=0), "rank of at least 1. Received: rank=0"),
        (lambda: PowerSGD(rank=1.5), "rank as an int. Received: rank=1.5"),
        (lambda: PowerSGD(start_step=-1), "Received: start_step=-1"),
        (lambda: PowerSGD(min_ratio=0.5), "Received: min_ratio=0.5"),
        (lambda: PowerSGD(min_size=0), "Received: min_size=0"),
        (lambda: PowerSGD(dtype="int8"), r"'float32', 'bfloat16', 'float16'\). Received: dtype='int8'"),
        (lambda: TopK(0), "above 0 and at most 1. Received: fraction=0"),
        (lambda: TopK(1.5), "Received: fraction=1.5"),
        (lambda: TopK("1%"), "fraction as a number. Received: fraction='1%'"),
        (lambda: TopK(0.1, momentum=1.0), r"momentum in \[0, 1\). Received: momentum=1.0"),
        (lambda: TopK(0.1, warmup_steps=-1), "Received: warmup_steps=-1"),
        (lambda: Quantize(bits=2), r"one of \(8, 4, 1\). Received: bits=2"),
        (lambda: Quantize(bits=True), "Received: bits=True"),
        (lambda: Cast("float32"), "Received: dtype='float32'"),
        (lambda: as_compressor("powersgd"), "Received: compression='powersgd'"),
    ],
)
def test_wrong_options_are_refused(make, error) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        make()


@pytest.mark.unit
def test_what_is_never_compressed() -> None:
    for compressor in (Cast(), PowerSGD(1), TopK(0.01), Quantize(1), TopK(0.01, min_size=2)):
        assert not compressor.takes((4096,))
        assert not compressor.takes(())
        assert compressor.takes((100, 100))
    assert not Quantize(1).takes((10, 10))
    assert Quantize(1, min_size=100).takes((10, 10))
    assert not PowerSGD(8).takes((4096, 8))
    assert not NoCompression().takes((4096, 4096))
    assert as_compressor(None) == NoCompression()


@pytest.mark.unit
def test_momentum_is_applied_once() -> None:
    inner = keras.optimizers.SGD(0.1, momentum=0.5)
    for optimizer in (inner, keras.optimizers.LossScaleOptimizer(inner)):
        with pytest.raises(ValueError, match=r"Momentum is applied twice.*Take SGD\(momentum=0\)"):
            TopK(0.1, momentum=0.9).check(optimizer)
        TopK(0.1).check(optimizer)
    TopK(0.1, momentum=0.9).check(keras.optimizers.SGD(0.1))


@pytest.mark.unit
@pytest.mark.parametrize("name", ["OneDeviceStrategy", "ParameterServerStrategy", "HybridParallelStrategy"])
def test_strategies_without_it(name: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'compression'"):
        getattr(tfdist, name)(compression=PowerSGD())
