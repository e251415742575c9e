"""The code of docs/updates.md, from top to bottom, on two workers and a ps.

python -m tests.updates.programs.docs FOLDER
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import tfdist

TEXT = (Path(__file__).parents[3] / "docs" / "updates.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def main(folder: str) -> None:
    os.chdir(folder)
    names: dict[str, Any] = {}
    with tfdist.cluster.local(workers=2, ps=1) as cluster:
        os.environ["TF_CONFIG"] = cluster.to_tf_config()
        for block in blocks("python"):
            exec(compile(block, "docs/updates.md", "exec"), names)
    assert names["history"].history.keys() >= {"staleness", "max_staleness", "dropped", "accuracy"}


if __name__ == "__main__":
    main(sys.argv[1])
