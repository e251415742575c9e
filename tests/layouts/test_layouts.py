"""Axes of a mesh, rules, placements and tables: plain Python, worked out by hand."""

from __future__ import annotations

import logging

import keras
import pytest

from tfdist import layouts
from tfdist.layouts.devices import mesh_devices
from tfdist.layouts.memory import MemoryReport, MemoryRow, size
from tfdist.layouts.mesh_axes import MeshAxes, mesh_axes
from tfdist.layouts.placement import Placements
from tfdist.layouts.rules import LayoutRules

pytestmark = pytest.mark.unit
AXES = MeshAxes({"batch": 2, "model": 4})


def test_a_mesh_has_as_many_devices_as_its_axes_say():
    assert (AXES.num_devices, AXES.num_batch_parts) == (8, 2)
    assert MeshAxes({"model": 4}).num_batch_parts == 1


@pytest.mark.parametrize("mesh", [{}, {"batch": 0}, {"batch": 1.5}, {"": 2}, {"batch": True}])
def test_a_mesh_without_axes_or_sizes_is_refused(mesh):
    with pytest.raises(ValueError, match="Received: mesh="):
        MeshAxes(mesh)


def test_a_mesh_may_be_keras_own():
    devices = keras.distribution.DeviceMesh((2, 1), ["data", "model"], ["cpu:0", "cpu:1"])
    assert mesh_axes(devices, "data") == MeshAxes({"data": 2, "model": 1}, "data")
    with pytest.raises(ValueError, match="Received: mesh=4, of type int"):
        mesh_axes(4, "batch")


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ((None, "modle"), "one of \\['batch', 'model'\\]"),
        (("model", "model"), "has one twice"),
        ("model", "is a tuple"),
    ],
)
def test_wrong_layouts_are_refused_at_once(layout, said):
    with pytest.raises(ValueError, match=said):
        LayoutRules({".*kernel": layout}, AXES)


def test_a_key_that_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match=r"Received: '\*kernel'"):
        LayoutRules({"*kernel": (None, "model")}, AXES)


@pytest.mark.parametrize(
    ("processes", "index", "devices", "own"),
    [
        (1, 0, ["CPU:0"], ["CPU:0"]),
        (2, 1, ["CPU:0"], ["CPU:0"]),
        (2, 1, ["/device:cpu:3", "CPU:0"], ["CPU:0"]),
        (2, 1, None, ["CPU:0"]),
    ],
)
def test_each_process_has_its_devices(processes, index, devices, own):
    """Named are those of one process, or of all in their order."""
    assert mesh_devices(devices, MeshAxes({"model": processes}), processes, index) == own


@pytest.mark.parametrize(
    ("processes", "devices", "said"),
    [
        (2, ["CPU:0"] * 3, r"Expected: 2 devices in each process for mesh=\{'batch': 4\}. Received: devices="),
        (3, None, "Expected: a multiple of 3 devices"),
        (4, ["CPU:7"], r"Received: devices=\['CPU:7'\]"),
    ],
)
def test_devices_that_do_not_fit_the_mesh_are_refused(processes, devices, said):
    with pytest.raises(ValueError, match=said):
        mesh_devices(devices, MeshAxes({"batch": 4}), processes)


def test_keys_match_whole_paths_and_an_equal_path_comes_first():
    rules = LayoutRules({".*kernel": (None, "model"), "a/kernel": ("model", None), "b": ("batch",)}, AXES)
    assert rules.spec_for("a/kernel", (8, 8)) == ("model", None)
    assert rules.spec_for("x/kernel", (8, 8)) == (None, "model")
    assert rules.spec_for("x/kernels", (8, 8)) == (None, None)
    assert rules.take_unused() == ["b"]
    assert rules.take_unused() == []


def test_zero_splits_the_largest_whole_dimension():
    rules = LayoutRules({"a": (None, "model")}, AXES)
    stages = {stage: Placements(AXES, rules, stage).of_variable("a", (6, 8), is_parameter=True) for stage in (0, 1, 3)}
    assert {stage: one.kept for stage, one in stages.items()} == {
        0: (None, "model"),
        1: (None, "model"),
        3: ("batch", "model"),
    }
    assert all(one.used == (None, "model") for one in stages.values())
    assert Placements(AXES, rules, 1).of_slot((None, "model"), (6, 8)).kept == ("batch", "model")
    assert Placements(AXES, rules, 0).of_slot((None, "model"), (6, 8)).kept == (None, "model")


def test_what_no_axis_divides_stays_whole():
    placements = Placements(AXES, LayoutRules(None, AXES), 3)
    assert placements.of_variable("b", (3, 5), is_parameter=True).kept == (None, None)
    assert placements.of_variable("b", (4,), is_parameter=False).kept == (None,)


def test_an_indivisible_dimension_is_said(caplog):
    placements = Placements(AXES, LayoutRules({"a": (None, "model")}, AXES), 0)
    with caplog.at_level(logging.WARNING, "tfdist"):
        assert placements.of_variable("a", (8, 6), is_parameter=True).kept == (None, None)
    assert "6 is no multiple of the 4 of axis 'model'" in caplog.text


@pytest.mark.parametrize("stage", [2, 4, True, "3"])
def test_other_stages_are_refused(stage):
    with pytest.raises(ValueError, match="Received: zero_stage="):
        Placements(AXES, LayoutRules(None, AXES), stage)


def test_zero_needs_a_batch_axis():
    axes = MeshAxes({"model": 4})
    with pytest.raises(ValueError, match="Expected: an axis 'batch'"):
        Placements(axes, LayoutRules(None, axes), 3)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("block/multi_head_attention/query/kernel", (64, 8, 8), (None, "model", None)),
        ("block/multi_head_attention/value/bias", (8, 8), ("model", None)),
        ("block/multi_head_attention/attention_output/kernel", (8, 8, 64), ("model", None, None)),
        ("block/multi_head_attention/attention_output/bias", (64,), (None,)),
        ("block/dense/kernel", (64, 256), (None, "model")),
        ("block/dense_1/kernel", (256, 64), ("model", None)),
        ("block/dense/bias", (256,), (None,)),
        ("embedding/embeddings", (1000, 64), (None, "model")),
        ("block/layer_normalization/gamma", (64,), (None,)),
    ],
)
def test_megatrons_rules(path, shape, spec):
    assert LayoutRules(layouts.transformer(), AXES).spec_for(path, shape) == spec


def test_embeddings_by_vocabulary():
    assert LayoutRules(layouts.embedding(by="vocabulary"), AXES).spec_for("e/embeddings", (8, 2)) == ("model", None)
    with pytest.raises(ValueError, match="Received: by='rows'"):
        layouts.embedding(by="rows")


def row(path, kept, parameter, slots=0, gradient=0):
    return MemoryRow(path, (4, 8), "float32", kept, (None, None), parameter, slots, gradient)


def test_the_table_adds_up():
    report = MemoryReport(AXES, (row("a", ("batch", None), 64, 128, 64), row("b", (None, None), 128)), 12)
    assert (report.parameter_bytes, report.slot_bytes, report.gradient_bytes) == (192, 140, 64)
    assert report.replicated == ["b"]
    assert str(report).splitlines() == [
        "variable           shape           kept                    parameter  slots  gradient",
        "-------------------------------------------------------------------------------------",
        "a                  float32 [4, 8]  [batch, -], used whole  64 B       128 B  64 B",
        "b                  float32 [4, 8]  whole                   128 B      0 B    0 B",
        "(optimizer's own)                                                     12 B",
        "-------------------------------------------------------------------------------------",
        "each of 8 devices                                          192 B      140 B  64 B",
    ]


@pytest.mark.parametrize(("number", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")])
def test_sizes(number, said):
    assert size(number) == said


def build() -> keras.Model:
    """An up and a down of 64 x 256, and a bias each: 33,088 parameters."""
    inputs = keras.Input((64,))
    return keras.Model(inputs, keras.layers.Dense(64)(keras.layers.Dense(256)(inputs)))


@pytest.mark.parametrize(("limit", "stage"), [(None, 0), (300_000, 0), (200_000, 1), (80_000, 3)])
def test_a_plan_takes_the_lowest_stage_that_fits(limit, stage):
    """Parameters, gradients and Adam's two slots; kernels are in halves by "model", biases too small to be."""
    plan = layouts.auto(build, {"batch": 8, "model": 2}, memory_limit_bytes=limit)
    kernels, biases = 2 * 64 * 256 * 4 // 2, (64 + 256) * 4
    expected = {0: 4 * (kernels + biases), 1: kernels + biases + 3 * (kernels + biases) // 8}
    expected[3] = 4 * (kernels + biases) // 8
    assert plan.zero_stage == stage
    assert plan.report.total_bytes == expected[stage]
    assert plan.options == {
        "mesh": {"batch": 8, "model": 2},
        "layout_map": "auto",
        "zero_stage": stage,
        "batch_axis": "batch",
    }


def test_a_plan_that_fits_nowhere_says_what_is_missing():
    with pytest.raises(ValueError, match=r"of at most 1000 B on each device. Received: 32.6 KiB"):
        layouts.auto(build, {"batch": 8, "model": 2}, memory_limit_bytes=1000)
