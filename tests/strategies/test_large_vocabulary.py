"""A head with a large vocabulary that is split over devices: no device has all logits, and numbers are one device's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.strategies.programs.large_vocabulary import BATCH, PADDED, TIME
from tests.strategies.test_hybrid_parallel import TOLERANCE, run

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where DTensor writes what each device computes."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def found(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TF_DUMP_GRAPH_PREFIX", str(graphs))
        environment.setenv("TF_CPP_VMODULE", "dtensor_mlir_passes=1")
        environment.setenv("TFDIST_COLD_TESTS", "1")  # TensorFlow reads them when it is loaded
        yield run("large_vocabulary", ["padded", "probabilities"], tmp_path_factory.mktemp("large_vocabulary"))


@pytest.mark.timeout(900)  # the first runs both
@pytest.mark.parametrize("case", ["padded", "probabilities"])
def test_equals_one_device(found: dict[str, Any], case: str) -> None:
    assert {key: value for key, value in found[case].items() if value > TOLERANCE} == {}


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ignored_labels_have_no_part(tmp_path: Path) -> None:
    found = run("large_vocabulary", ["ignored"], tmp_path)["ignored"]
    assert {key: value for key, value in found.items() if value > TOLERANCE} == {}


def test_no_device_has_more_than_its_part_of_the_logits(found: dict[str, Any], graphs: Path) -> None:
    """A quarter of them, on a mesh of 2 x 2; in training, evaluating and predicting, with top-5 and all."""
    after_all_passes = list(graphs.glob("*after_DTensorFunctionRenaming*_of_tensors*"))
    sizes = [size for path in after_all_passes for size in sizes_of_tensors(path.read_text())]
    assert len(after_all_passes) >= 3
    assert max(sizes) == BATCH * TIME * PADDED // 4


def sizes_of_tensors(code: str) -> list[int]:
    """Numbers in each tensor that DTensor's code has on one device."""
    shapes = re.findall(r"tensor<((?:\d+x)+)[a-z]\w*>", code)
    return [math.prod(map(int, shape.rstrip("x").split("x"))) for shape in shapes]
