"""The code of docs/input.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.unit
def test_the_code_runs(tmp_path, monkeypatch):
    text = (DOCS / "input.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/input.md", "exec"), names)
    assert names["position"].epoch == 2
    assert sorted(path.name for path in (tmp_path / "data").glob("train*"))[-1] == "train.tfdist-index"


@pytest.mark.unit
def test_links_lead_somewhere():
    text = (DOCS / "input.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (DOCS / target).exists(), target
