"""The promise: every case gives what one device gives on the same global batches, and the same bits on all workers.

`TFDIST_MATRIX=all` runs every case in every set-up, as docs/matrix.md was made, in 25 minutes on two cores. Otherwise
each case runs in one set-up, in turns, and in those made for it.
"""

from __future__ import annotations

import os

import pytest

from tests.helpers.cases import ACCUMULATING, ON_A_MESH, Case, all_cases, runs_in
from tests.helpers.matrix import compare, start
from tests.helpers.setups import WORKERS

SETUPS = [setup for setup in WORKERS if setup != "one_device"]
#: A case runs in one of each row; accumulation is alike in both of the last.
IN_TURNS = (("workers2", "parameter_server", "mirrored3", "workers3", "mirrored2"), ACCUMULATING)


def picked(number: int, case: Case) -> list[str]:
    """The set-ups in which a case runs."""
    setups = [setup for setup in SETUPS if runs_in(case, setup)]
    if os.environ.get("TFDIST_MATRIX") == "all":
        return setups
    rows = [[setup for setup in row if setup in setups] for row in IN_TURNS]
    others = [setup for setup in setups if not in_turns(setup) and not setup.startswith("hybrid")]
    on_mesh = ["hybrid"] if case.name in ON_A_MESH else []
    return [row[number % len(row)] for row in rows if row] + others + on_mesh


def in_turns(setup: str) -> bool:
    return any(setup in row for row in IN_TURNS)


PICKED = {case.name: picked(number, case) for number, case in enumerate(all_cases().values())}
CELLS = [(setup, case) for setup in SETUPS for case in all_cases().values() if setup in PICKED[case.name]]


@pytest.fixture(scope="module", autouse=True)
def started(request: pytest.FixtureRequest) -> None:
    """Set-ups of one process run two at a time, with the cases that are wanted."""
    cells = [item.callspec.params for item in request.session.items if item.path == request.path]
    cases = {setup: [cell["case"].name for cell in cells if cell["setup"] == setup] for setup in SETUPS}
    names = {cell["case"].name for cell in cells}
    start({"one_device": names, **{setup: wanted for setup, wanted in cases.items() if wanted}})


@pytest.mark.cluster
@pytest.mark.leaks("processes")  # the set-ups of the tests that follow
@pytest.mark.timeout(1800)  # the first case of a set-up runs all that are wanted, in processes of its own
@pytest.mark.parametrize(("setup", "case"), CELLS, ids=[f"{setup}-{case.name}" for setup, case in CELLS])
def test_equals_one_device(setup: str, case: Case) -> None:
    comparison = compare(setup, case)
    assert comparison.workers_equal
    assert comparison.difference <= case.tolerance
