"""The chief writes a file that the other worker reads, and fails to write another."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tfdist
from tfdist.errors import WorkersDisagreeError


def main(folder: Path) -> None:
    """What the others see of it."""
    strategy = tfdist.MultiWorkerMirroredStrategy()

    def write() -> None:
        time.sleep(1)  # the others would find nothing if they didn't wait
        (folder / "written").write_text("by the chief")

    def fail() -> None:
        raise ValueError("no room")

    strategy.on_chief(write, name="write")
    assert (folder / "written").read_text() == "by the chief"
    expected: type[Exception] = ValueError if strategy.is_chief else WorkersDisagreeError
    try:
        strategy.on_chief(fail, name="fail")
    except expected as error:
        assert "no room" in str(error)
    else:
        raise AssertionError("the failure was not seen")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
