"""Memory on each device, files, mistakes, and Keras' own classes for layouts, under HybridParallelStrategy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.strategies.test_hybrid_parallel import run

pytestmark = pytest.mark.cluster

#: By how much parameters and slots shrink, apart from what is whole.
PARTS = {"whole": (1, 1), "zero1": (1, 2), "fsdp": (2, 2), "tensor": (2, 2), "fsdp_tensor": (4, 4)}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run("hybrid_parallel_facts", [], tmp_path_factory.mktemp("facts"))


@pytest.mark.parametrize("split", PARTS)
def test_each_device_holds_its_part(facts: dict[str, Any], split: str) -> None:
    """Within 5% and what the summary names as whole; biases of 8 and 4 numbers are split over one axis only."""
    memory, whole = facts["memory"][split], facts["memory"]["whole"]
    parameters, slots = PARTS[split]
    assert memory["parameters"] == [memory["reported"][0]] * 4
    assert memory["slots"] == [memory["reported"][1]] * 4
    size = whole["reported"][0]
    unsplit = memory["whole"] if split != "fsdp_tensor" else facts["memory"]["tensor"]["whole"] / 2
    assert memory["reported"][0] <= 1.05 * ((size - unsplit) / parameters + unsplit)
    counters = 12  # the optimizer's count of steps and its learning rate
    unsplit = memory["whole"] if split in ("whole", "tensor") else 0 if split != "fsdp_tensor" else unsplit
    assert memory["reported"][1] <= 1.05 * 2 * ((size - unsplit) / slots + unsplit) + counters


def test_the_summary_is_a_table(facts: dict[str, Any]) -> None:
    table = facts["memory"]["fsdp_tensor"]["table"]
    (kernel,) = [line for line in table.splitlines() if line.startswith("up/kernel")]
    assert kernel.split() == [
        *("up/kernel", "float32", "[8,", "32]", "[batch,", "model],", "used", "[-,", "model]"),
        *("256", "B", "512", "B", "256", "B"),
    ]
    assert table.splitlines()[-1].startswith("each of 4 devices")


@pytest.mark.parametrize("file", ["plain", "other", "weights", "goes on"])
def test_files_are_plain_keras(facts: dict[str, Any], file: str) -> None:
    """Saved under FSDP with tensors split; loaded by plain Keras, under another mesh, and as weights alone."""
    assert facts["files"][file] < 1e-6
    assert facts["files"]["kernel"] == ["unsharded", "model"]


SAID = {
    "too few devices": ("Expected: 8 devices", "Received: 4 CPUs", "set_logical_device_configuration"),
    "other number of devices": ("Expected: 4 devices", "Received: devices=['CPU:0']"),
    "devices that aren't there": ("Received: devices=['CPU:0', 'CPU:7']", "Use a smaller mesh"),
    "wrong rank": ("Expected: 2 for 'sequential/up/kernel'", "Received: ('model',), which has 1"),
    "two rules": ("at most one key", "Received: ['.*up/kernel', '.*kernel']"),
    "xla": ("Expected: jit_compile=False or 'auto'", "Leave jit_compile out"),
    "operation": ("'AvgPoolGrad'", "average_pooling1d", "Use MaxPooling"),
    "loop": ("can't split a loop", "map/while", "unroll=True"),
    "eager mask": ("Expected: run_eagerly=False", "StridedSlice got a regular tensor"),
    "metric made outside": ("writes to variables of the mesh only", "counted/total", "Make it in the scope"),
    "ragged": ("Received: a RaggedTensor", "dataset.map()"),
    "cut too late": ("at the beginning of the program",),
}


@pytest.mark.parametrize("mistake", SAID)
def test_mistakes_are_said_with_a_remedy(facts: dict[str, Any], mistake: str) -> None:
    said = facts["errors"][mistake]
    assert [text for text in SAID[mistake] if text not in said] == [], said


def test_what_has_no_effect_is_warned_of_once(facts: dict[str, Any]) -> None:
    indivisible, unused = facts["warnings"]
    assert "7 is no multiple of the 2 of axis 'model'" in indivisible
    assert "'.*nowhere'" in unused


def test_layouts_of_keras_are_taken(facts: dict[str, Any]) -> None:
    """A DeviceMesh and a LayoutMap, with a tuple and a TensorLayout."""
    assert facts["keras_own"] == {
        "up/kernel": ["unsharded", "model"],
        "up/bias": ["unsharded"],
        "down/kernel": ["model", "unsharded"],
        "down/bias": ["unsharded"],
    }


def test_a_loop_of_ones_own_equals_one_device(facts: dict[str, Any]) -> None:
    assert facts["loop_of_ones_own"]["losses"] < 1e-5
    assert facts["loop_of_ones_own"]["weights"] < 1e-5


def test_a_model_can_be_called_on_arrays(facts: dict[str, Any]) -> None:
    assert facts["called"] < 1e-6


def test_variables_are_drawn_block_by_block(facts: dict[str, Any]) -> None:
    """Rows of 32 numbers in blocks of 512 bytes are drawn 4 at a time, rows of 4 numbers 32 at a time."""
    drawn = facts["drawn_by_blocks"]
    assert drawn["zero_stage=0"] == drawn["zero_stage=3"] == 0.0
    assert drawn["rows"] == 32
    assert drawn["blocks"] == 2 * (4 * 16 // 4 + 128 // 32)


def test_a_plan_holds_what_it_says(facts: dict[str, Any]) -> None:
    """And the model that is split by it trains as on one device."""
    planned = facts["planned"]
    assert planned["stage"] == 1
    assert planned["planned"] == planned["reported"]
    assert sum(planned["planned"]) <= 64_000
    assert "attention/query/kernel" not in planned["whole"]
    assert planned["losses"] < 1e-5
    assert planned["weights"] < 1e-5
