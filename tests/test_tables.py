"""Tables of text."""

from __future__ import annotations

import pytest

from tfdist.tables import aligned

pytestmark = pytest.mark.unit


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["name", "bytes", "where"], ["a", "1,024", "GPU:0"], ["longer", "8", "host"]]
    assert aligned(rows, right=[1]) == ["name    bytes  where", "a       1,024  GPU:0", "longer      8  host"]


def test_cells_are_on_the_left_by_default():
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc  d"]
