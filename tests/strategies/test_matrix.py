"""The promise: every case gives what one device gives on the same global batches, and the same bits on all workers."""

from __future__ import annotations

import pytest

from tests.helpers.cases import all_cases
from tests.helpers.matrix import compare
from tests.helpers.setups import ACCUMULATING

CASES = all_cases()
ACCUMULATION = {name: case for name, case in CASES.items() if case.group == "accumulation"}


@pytest.mark.cluster
@pytest.mark.timeout(1200)  # the first case of a set-up runs all of them, in processes of its own
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("setup", ["mirrored2", "mirrored3", "workers2", "workers3"])
def test_equals_one_device(setup: str, case) -> None:
    comparison = compare(setup, case)
    assert comparison.workers_equal
    assert comparison.difference <= case.tolerance


@pytest.mark.cluster
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", ACCUMULATION.values(), ids=list(ACCUMULATION))
@pytest.mark.parametrize("setup", list(ACCUMULATING))
def test_accumulation_on_one_device_equals_whole_batches(setup: str, case) -> None:
    assert compare(setup, case).difference <= case.tolerance
