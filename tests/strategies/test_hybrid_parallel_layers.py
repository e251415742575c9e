"""Every layer class of Keras trains as on one device on a mesh, or is refused with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from tests.helpers.hybrid_layers import line, tried
from tests.helpers.keras_layers import EXAMPLES, NOT_IN_MODELS, all_names

TABLE = Path(__file__).parents[2] / "docs" / "hybrid_parallel_layers.md"
#: One of each way in which layers are treated, but for those of test_hybrid_parallel.py; the others run at night.
CHOSEN = [
    *("Attention", "GroupedQueryAttention", "LSTM", "TimeDistributed", "UpSampling2D"),
    *("AveragePooling2D", "DepthwiseConv2D", "RandomCrop"),
]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What became of the layers that are asked for."""
    asked = [
        item.callspec.params["layer"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    return tried(asked)


def check(layer: str, found: dict[str, Any]) -> None:
    assert line(layer, found[layer]) in TABLE.read_text(encoding="utf-8").splitlines()


@pytest.mark.cluster
@pytest.mark.parametrize("layer", CHOSEN)
def test_is_as_the_table_says(found: dict[str, Any], layer: str) -> None:
    check(layer, found)


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.timeout(1800)  # the first runs them all
@pytest.mark.parametrize("layer", EXAMPLES)
def test_all_are_as_the_table_says(found: dict[str, Any], layer: str) -> None:
    check(layer, found)


@pytest.mark.unit
@pytest.mark.skipif(not keras.__version__.startswith("3.15."), reason="the table is of Keras 3.15")
def test_the_table_has_every_layer_of_keras() -> None:
    """Those of another version of Keras are tried, or it's said why not."""
    rows = [row for row in TABLE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    names = [row.split("|")[1].strip() for row in rows]
    assert names[1:] == all_names()
    assert sorted({*EXAMPLES, *NOT_IN_MODELS}) == all_names()
