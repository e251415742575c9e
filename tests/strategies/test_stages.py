"""Schedules and cuts, worked out by hand."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from tfdist._compat.keras_staged_models import calls_of, graph_of, input_ids, output_ids
from tfdist.strategies.stages.plan import Stage, cut, size_bytes
from tfdist.strategies.stages.schedule import gpipe, most_in_flight, one_forward_one_backward

pytestmark = pytest.mark.unit


def text(units: list) -> str:
    return " ".join(f"{unit.kind[0].upper()}{unit.micro_batch}" for unit in units)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (0, "F0 F1 F2 B0 F3 B1 B2 B3"),
        (1, "F0 F1 B0 F2 B1 F3 B2 B3"),
        (2, "F0 B0 F1 B1 F2 B2 F3 B3"),
    ],
)
def test_one_forward_one_backward(stage: int, expected: str) -> None:
    units = one_forward_one_backward(stage, 3, 4)
    assert text(units) == expected
    assert most_in_flight(units) == 3 - stage


def test_fewer_micro_batches_than_stages() -> None:
    assert text(one_forward_one_backward(0, 4, 2)) == "F0 F1 B0 B1"
    assert text(one_forward_one_backward(0, 4, 1)) == "F0 B0"


def test_gpipe() -> None:
    units = gpipe(0, 2, 3)
    assert text(units) == "F0 F1 F2 B0 B1 B2"
    assert most_in_flight(units) == 3


def cut_model(model: keras.Model, count: int, boundaries: list[str] | None = None) -> list[Stage]:
    graph = graph_of(model)
    return cut(calls_of(graph), input_ids(graph), output_ids(graph), count, boundaries)


def dense(units: int) -> layers.Layer:
    return layers.Dense(units, use_bias=False, name=f"dense{units}")


def test_bytes_are_balanced() -> None:
    """100, 10, 2, 180 and 90 numbers: no part is smaller than 180, and 180 + 90 or 2 + 180 are larger."""
    model = keras.Sequential([keras.Input((10,)), *map(dense, (10, 1, 2, 90)), layers.Dense(1, name="last")])
    stages = cut_model(model, 3)
    assert [stage.layer_names for stage in stages] == [["dense10", "dense1", "dense2"], ["dense90"], ["last"]]
    assert [size_bytes(stage.own_variables) for stage in stages] == [4 * 112, 4 * 180, 4 * 91]


def test_a_sum_is_where_its_latest_part_is_and_tensors_skip_stages() -> None:
    inputs = keras.Input((4,))
    first = dense(4)(inputs)
    second = layers.Dense(4, name="second")(first)
    third = layers.Dense(4, name="third")(second)
    stages = cut_model(keras.Model(inputs, layers.Add(name="sum")([first, third])), 3, ["second", "third"])
    assert [stage.layer_names for stage in stages] == [["dense4"], ["second"], ["third", "sum"]]
    assert stages[0].handed == [id(first)]
    assert stages[1].needed == [id(first)]
    assert sorted(stages[2].needed) == sorted([id(first), id(second)])


def test_a_shared_layer_belongs_to_the_first_stage_that_uses_it() -> None:
    inputs, shared = keras.Input((4,)), dense(4)
    middle = layers.Dense(4, name="middle")(shared(inputs))
    stages = cut_model(keras.Model(inputs, shared(middle)), 2, ["middle"])
    assert [stage.layer_names for stage in stages] == [["dense4"], ["middle", "dense4"]]
    assert [len(stage.own_variables) for stage in stages] == [1, 2]
    assert [len(stage.variables) for stage in stages] == [1, 3]
