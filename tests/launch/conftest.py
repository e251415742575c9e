from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.launching import HEAD


@pytest.fixture
def launch(tmp_path):
    """`launch("--workers=2", body)` starts it in an empty directory; all is ended after the test."""
    started = []

    def start(*options: str, body: str, args: tuple[str, ...] = (), **popen) -> subprocess.Popen:
        (tmp_path / "script.py").write_text(HEAD + textwrap.dedent(body))
        command = [sys.executable, "-m", "tfdist", "launch", *options, "script.py", *args]
        popen = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **popen}
        started.append(subprocess.Popen(command, **popen))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with contextlib.suppress(ValueError):  # closed already
            process.communicate()
