"""Trainings with compressed gradients: resumed to the same bits, kept in files, as on one device, and few bytes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.gradients.programs.compression_fit import WIDE, WIDE_STEPS
from tests.helpers.cluster_runner import run_python
from tests.helpers.setups import WORKERS
from tfdist.gradients.compression.automatic import FOR_GOOD, LOW_RANK, SIXTEEN_BITS, WHOLE, choose

# Fourteen functions are compiled one after another, on a busy machine.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

#: Float32 rounding, after ten steps of Adam.
TOLERANCE = 5e-6
#: 64 x 512, twice 512 x 512, 512 x 1 and their biases, float32: what a worker of two sends in a step.
MODEL_BYTES = 4 * (64 * 512 + 2 * 512 * 512 + 512 + 3 * 512 + 1)


def run(setup: str, folder: Path, *options: str) -> list[dict[str, Any]]:
    """What each worker has kept."""
    arguments = ["-m", "tests.gradients.programs.compression_fit", setup, str(folder), *options]
    run_python(arguments, workers=WORKERS[setup], logs=folder / "logs", timeout_seconds=800)
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pickle"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers2")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return run("workers2", folder)


def expect_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit by bit."""
    assert all(np.array_equal(a, b) for a, b in zip(one["weights"], other["weights"], strict=True))
    assert one["states"].keys() == other["states"].keys() != set()
    for name, copies in one["states"].items():
        assert all(np.array_equal(a, b) for a, b in zip(copies, other["states"][name], strict=True)), name


def expect_resumed(found: list[dict[str, Any]], name: str) -> None:
    for task in found:
        expect_equal(task["resumed"][f"{name}, whole"], task["resumed"][f"{name}, resumed"])
    assert any(np.any(copy) for copy in found[0]["resumed"][f"{name}, whole"]["states"]["1_error"])


def test_goes_on_to_the_same_bits(found) -> None:
    """From the middle of an accumulation."""
    expect_resumed(found, "power")
    states = found[0]["resumed"]["power, whole"]["states"]
    assert states.keys() == {"1_error", "1_factor", "3_error", "3_factor"}, "both kernels are compressed"


def test_workers_are_equal(found) -> None:
    for task in found[1:]:
        for name, result in found[0]["resumed"].items():
            for one, other in zip(result["weights"], task["resumed"][name]["weights"], strict=True):
                assert np.array_equal(one, other), name


@pytest.mark.parametrize("kind", ["loaded", "read"])
def test_files_keep_what_replicas_owe_together(found, kind: str) -> None:
    """Keras' and TensorFlow's; each replica goes on with an even part."""
    saved = [copy for task in found for copy in task["files"]["saved"]["states"]["1_error"]]
    after = [copy for task in found for copy in task["files"][kind]["states"]["1_error"]]
    assert np.abs(sum(saved)).max() > 1e-5, "or this shows nothing"
    for copy in after:
        np.testing.assert_allclose(copy, sum(saved) / len(saved), atol=1e-7)
    factor = found[0]["files"]["saved"]["states"]["1_factor"][0]
    assert all(np.array_equal(copy, factor) for task in found for copy in task["files"][kind]["states"]["1_factor"])


def test_files_load_in_plain_keras(found, folder: Path) -> None:
    saved = found[0]["files"]["saved"]["weights"]
    code = (
        "import sys, keras, numpy as np; m = keras.models.load_model(sys.argv[1]); assert 'tfdist' not in sys.modules;"
    )
    code += "m.load_weights(sys.argv[2]); np.savez(sys.argv[3], *m.get_weights())"
    paths = [str(folder / name) for name in ("model.keras", "model.weights.h5", "plain.npz")]
    run_python(["-c", code, *paths], workers=0, logs=folder / "plain")
    loaded = np.load(paths[2])
    assert all(np.array_equal(loaded[name], one) for name, one in zip(loaded.files, saved, strict=True))
    assert keras.backend.backend() == "tensorflow"


def test_compression_that_leaves_nothing_out_is_none(found) -> None:
    """Unequal rows, clipping and a loss scale come in the same order."""
    for one, other in zip(found[0]["lossless"]["none"], found[0]["lossless"]["all"], strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


def test_all_workers_choose_the_same(found) -> None:
    choices = [list(task["auto"]["states"]["-1_choice"]) for task in found]
    assert all(task["auto"]["states"]["-1_decided"][0] == 1 for task in found)
    assert choices[0] == choices[-1]
    assert choices[0][0] in FOR_GOOD.values()
    for one, other in zip(found[0]["auto"]["weights"], found[-1]["auto"]["weights"], strict=True):
        assert np.array_equal(one, other)
    if choices[0][0] != LOW_RANK:
        assert not any(np.any(copy) for copy in found[0]["auto"]["states"]["1_error"]), "what was owed was sent"


@pytest.mark.parametrize(
    ("seconds", "way"),
    [
        ([[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]], WHOLE),
        ([[2.0, 2.0], [1.97, 1.97], [1.97, 1.97]], WHOLE),
        ([[2.0, 2.0], [1.9, 1.9], [1.89, 1.89]], SIXTEEN_BITS),
        ([[2.0, 2.0, 9.0], [1.9, 2.1, 1.0], [2.5, 2.5, 2.5]], WHOLE),
        ([[2.0, 2.0], [2.5, 2.5], [1.0, 1.5]], LOW_RANK),
        ([[2.0, 2.0], [2.5, 2.5], [1.4, 1.5]], WHOLE),
        ([[2.0, 2.0], [1.5, 1.5], [1.0, 1.6]], SIXTEEN_BITS),
    ],
)
def test_what_says_less_must_be_faster(seconds: list[list[float]], way: int) -> None:
    assert choose(seconds) == way


@pytest.mark.parametrize(("name", "ratio"), [("power", 30), ("top", 50), ("4 bits", 7.7)])
def test_bytes_fall(found, name: str, ratio: float) -> None:
    """As the strategy counts them, and as the kernel does."""
    for task in found:
        said, sent = task["wide"][name]["said"], task["wide"][name]["sent"] - task["wide"]["nothing"]["sent"]
        assert MODEL_BYTES / said > ratio
        # What gRPC says around a message is nothing beside a megabyte, and something beside 30 kB.
        assert sent / WIDE_STEPS == pytest.approx(said, rel=0.05, abs=4000)


def test_bytes_of_sixteen_bits_and_of_all(found) -> None:
    for task in found:
        sent = {name: (task["wide"][name]["sent"] - task["wide"]["nothing"]["sent"]) / WIDE_STEPS for name in WIDE}
        assert sent["none"] == pytest.approx(MODEL_BYTES, rel=0.05)
        assert sent["bfloat16"] == pytest.approx(MODEL_BYTES / 2, rel=0.05)


@pytest.mark.nightly
def test_two_devices_of_one_process(tmp_path: Path) -> None:
    """Other compressors go on to the same bits, and eager steps are those that are compiled."""
    found = run("mirrored2", tmp_path)
    expect_resumed(found, "top")
    expect_resumed(found, "1 bit")
    for one, other in zip(found[0]["eager"]["eager"], found[0]["eager"]["compiled"], strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


def test_what_two_replicas_owe_is_divided_among_three(tmp_path: Path) -> None:
    (two,) = run("mirrored2", tmp_path, "--elastic")
    _, three = run("mirrored3", tmp_path, "--elastic")
    before, after = two["after"]["states"]["1_error"], three["before"]["states"]["1_error"]
    assert (len(before), len(after)) == (2, 3)
    for copy in after:
        np.testing.assert_allclose(copy, sum(before) / 3, atol=1e-7)
