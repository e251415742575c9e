"""The code of docs/updates.md runs, its configuration is one, and all policies are in it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

import tfdist.updates
from tests.helpers.cluster_runner import run_python
from tests.updates.programs.docs import TEXT, blocks
from tfdist.config import Part
from tfdist.config.training import with_objects
from tfdist.updates import BoundedStaleness, Policy


@pytest.mark.cluster
def test_the_code_runs(tmp_path):
    assert len(blocks("python")) >= 2
    run_python(["-m", "tests.updates.programs.docs", str(tmp_path)], workers=0, logs=tmp_path / "tasks")
    assert list((tmp_path / "logs" / "staleness").glob("events*"))
    assert "staleness in epoch 2: mean" in (tmp_path / "tasks" / "0.log").read_text()


@pytest.mark.unit
def test_the_configuration_is_one(tmp_path):
    (text,) = blocks("yaml")
    strategy = with_objects(Part(**yaml.safe_load(text)["strategy"]), tmp_path)
    assert strategy.options == {"update": BoundedStaleness(max_staleness=4)}


@pytest.mark.unit
def test_every_policy_is_in_the_table():
    policies = {name for name, value in vars(tfdist.updates).items() if dataclasses.is_dataclass(value)} - {"Push"}
    assert all(issubclass(getattr(tfdist.updates, name), Policy) for name in policies)
    assert {name for name in policies if f"| `{name}(" not in TEXT} == set()


@pytest.mark.unit
def test_links_lead_somewhere():
    docs = Path(__file__).parents[2] / "docs"
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (docs / target).exists(), target
