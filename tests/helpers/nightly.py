"""Parameters of a test that is for the night."""

from __future__ import annotations

from typing import Any

import pytest


def nightly(*values: Any) -> Any:
    """These values, with which a test shows what it shows with others too."""
    return pytest.param(*values, marks=pytest.mark.nightly)
