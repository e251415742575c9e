"""Machines that are network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from benchmarks.harness.contenders import Network
from benchmarks.harness.links import INTERFACE, Link, LinkFailed, limited_link

pytestmark = pytest.mark.unit
needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("tc") is None, reason="needs root and iproute2")


def inside(link: Link, end: int, *command: str) -> str:
    done = subprocess.run(link.inside(end, command), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=60, check=True).stdout


@needs_root
def test_three_machines_on_a_switch():
    receive = "import socket; s = socket.create_server(('0.0.0.0', 5000)); print('up', flush=True); c = s.accept()[0]\n"
    receive += "total = 0\nwhile data := c.recv(1 << 16): total += len(data)\nprint(total)"
    send = "import socket; c = socket.create_connection(('10.77.0.3', 5000), 30); c.sendall(bytes(300000))"
    with limited_link(Network(100, ends=3)) as link:
        assert link.addresses == ["10.77.0.1", "10.77.0.2", "10.77.0.3"]
        assert "rate 100Mbit burst 128Kb" in inside(link, 1, "tc", "qdisc", "show", "dev", INTERFACE)
        receiver = subprocess.Popen(link.inside(2, ["python3", "-c", receive]), stdout=subprocess.PIPE, text=True)
        try:
            assert receiver.stdout is not None and receiver.stdout.readline() == "up\n"
            inside(link, 0, "python3", "-c", send)
            assert receiver.communicate(timeout=60)[0] == "300000\n"
        finally:
            receiver.kill()
            receiver.wait(timeout=60)
        assert link.namespaces[0] in namespaces()
    assert f"tfdist-bench-{os.getpid()}-" not in namespaces()


@needs_root
def test_links_go_whatever_happens():
    with pytest.raises(KeyError), limited_link(Network(100)):
        raise KeyError
    assert f"tfdist-bench-{os.getpid()}-" not in namespaces()


def test_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LinkFailed, match="Expected: ip and tc on the PATH"):
        limited_link(Network(100)).__enter__()
