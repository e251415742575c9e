"""The leak fixture sees what it's there for. Each case is a pytest run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

CLEAN = """
import os, socket, subprocess, sys, threading
def test_clean(monkeypatch):
    monkeypatch.setenv("A", "1")
    subprocess.run([sys.executable, "-c", ""], check=True)
    thread = threading.Thread(target=print); thread.start(); thread.join()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); s.listen()
"""
LEAKY = """
import os, socket, subprocess, sys, threading
import pytest
KEEP = []
def test_processes(): KEEP.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]))
def test_threads():
    KEEP.append(threading.Event()); threading.Thread(target=KEEP[-1].wait, args=(20,)).start()
def test_environment(): os.environ["LEAKED"] = "1"
def test_ports(): KEEP.append(socket.create_server(("127.0.0.1", 0)))
@pytest.mark.leaks("ports")
def test_allowed(): KEEP.append(socket.create_server(("127.0.0.1", 0)))
def test_others_do_not_suffer(): assert "LEAKED" not in os.environ
def test_end(): [k.set() for k in KEEP if isinstance(k, threading.Event)]
"""


def run_pytest(folder: Path, source: str) -> str:
    own = Path(__file__).with_name("conftest.py").read_text().replace("SETTLE_SECONDS = 5.0", "SETTLE_SECONDS = 0.3")
    (folder / "conftest.py").write_text(own)
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=env).stdout


def test_a_clean_test_passes(tmp_path):
    assert "1 passed" in run_pytest(tmp_path, CLEAN)


def test_each_kind_of_leak_fails_its_test_and_no_other(tmp_path):
    said = run_pytest(tmp_path, LEAKY)
    assert "7 passed, 4 errors" in said, said
    for kind in ("processes", "threads", "environment", "ports"):
        assert f"test_{kind} - Failed: The test left behind {kind}" in said
