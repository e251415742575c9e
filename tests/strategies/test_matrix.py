"""The promise: every case gives what one device gives on the same global batches, and the same bits on all workers."""

from __future__ import annotations

import pytest

from tests.helpers.cases import Case, all_cases, runs_in
from tests.helpers.matrix import compare, start
from tests.helpers.setups import WORKERS

SETUPS = [setup for setup in WORKERS if setup != "one_device"]
CELLS = [(setup, case) for setup in SETUPS for case in all_cases().values() if runs_in(case, setup)]


@pytest.fixture(scope="module", autouse=True)
def started(request: pytest.FixtureRequest) -> None:
    """Set-ups of one process run two at a time, those that are wanted."""
    wanted = {item.callspec.params["setup"] for item in request.session.items if item.path == request.path}
    start(["one_device", *(setup for setup in SETUPS if setup in wanted)])


@pytest.mark.cluster
@pytest.mark.leaks("processes")  # the set-ups of the tests that follow
@pytest.mark.timeout(1800)  # the first case of a set-up runs all of them, in processes of its own
@pytest.mark.parametrize(("setup", "case"), CELLS, ids=[f"{setup}-{case.name}" for setup, case in CELLS])
def test_equals_one_device(setup: str, case: Case) -> None:
    comparison = compare(setup, case)
    assert comparison.workers_equal
    assert comparison.difference <= case.tolerance
