"""Connections between workers: real sockets, real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tfdist.cluster.address import Address
from tfdist.cluster.peers import Loss, PeerMesh, StepClock
from tfdist.cluster.peers.connection import Connection

pytestmark = pytest.mark.unit

TOKEN = "0123456789abcdef"
#: Far more than anything here takes, on a machine that is busy with other things.
DEADLINE_SECONDS = 30.0

#: Worker 0 in a process of its own: says its address, learns the other's, and waits to be ended.
PROGRAM = """
import json, os, sys, time
from tfdist.cluster.peers import PeerMesh, StepClock
clock = StepClock()
mesh = PeerMesh(0, "127.0.0.1", clock)
print(mesh.address, flush=True)
def a_function_of_its_own():
    for line in sys.stdin:
        if line.startswith("{"):
            mesh.connect({int(k): v for k, v in json.loads(line).items()}, "0123456789abcdef", on_loss=print)
        elif line == "step\\n":
            with clock.execution():
                pass
        elif line == "fork\\n":
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            print(child, flush=True)
        elif line.startswith("close"):
            mesh.close(line[6:-1])
            return
a_function_of_its_own()
"""


class Other:
    """Worker 0."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


class Own:
    """Worker 1, in this process."""

    def __init__(self) -> None:
        self.clock, self.losses = StepClock(), []
        self.mesh = PeerMesh(1, "127.0.0.1", self.clock)

    def connect(self, other: Other) -> list[int]:
        other.tell(json.dumps({1: self.mesh.address}))
        return self.mesh.connect({0: other.address}, TOKEN, on_loss=self.losses.append)


@pytest.fixture
def other() -> Iterator[Other]:
    worker = Other()
    yield worker
    worker.process.kill()
    worker.process.wait()
    worker.process.stdin.close()
    worker.process.stdout.close()


@pytest.fixture
def own() -> Iterator[Own]:
    worker = Own()
    yield worker
    worker.mesh.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def meet(own: Own, other: Other) -> None:
    """Connects them, and returns when each has heard of the other."""
    assert own.connect(other) == []
    other.tell("step")
    wait_until(lambda: own.mesh.beats()[0].begun == 1)


def test_a_killed_process_is_a_loss_at_once(own, other):
    meet(own, other)
    other.process.send_signal(signal.SIGKILL)
    loss = own.mesh.loss(DEADLINE_SECONDS)
    assert loss == Loss(0, "was killed: its process has ended without a word")
    assert own.losses == [loss]
    assert own.mesh.silent_seconds() == {}


def test_an_error_is_passed_on(own, other):
    own.connect(other)
    other.tell("close ValueError: bad batch")
    assert str(own.mesh.loss(DEADLINE_SECONDS)) == "worker 0 failed with ValueError: bad batch"


def test_who_leaves_in_order_is_a_loss_only_after_a_while(own, other):
    own.connect(other)
    other.tell("close ")
    wait_until(lambda: own.mesh.silent_seconds() == {})
    assert own.mesh.loss() is None
    assert "all workers must make the same number of steps" in str(own.mesh.loss(DEADLINE_SECONDS))


def test_ending_together_is_no_loss(own, other):
    own.connect(other)
    other.tell("close ")
    wait_until(lambda: own.mesh.silent_seconds() == {})
    own.mesh.close()
    assert own.losses == []


def test_a_stopped_process_is_silent_and_not_lost(own, other):
    meet(own, other)
    other.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: own.mesh.silent_seconds()[0] > 3)
    assert own.mesh.loss() is None
    other.process.send_signal(signal.SIGCONT)
    wait_until(lambda: own.mesh.silent_seconds()[0] < 2)


def test_beats_say_how_far_it_is_and_stacks_what_it_does(own, other):
    meet(own, other)
    other.tell("step")
    wait_until(lambda: own.mesh.beats()[0].begun == 2)
    assert own.mesh.beats()[0].inside_seconds is None
    assert own.mesh.ask_stack(0).wait(DEADLINE_SECONDS)
    assert "a_function_of_its_own" in own.mesh.stack_of(0)


def test_a_forked_child_does_not_keep_its_dead_parent_alive(own, other):
    """Data loaders fork; the kernel closes a connection when the last process that has it ends."""
    meet(own, other)
    other.tell("fork")
    child = int(other.process.stdout.readline())
    try:
        other.process.kill()
        assert own.mesh.loss(DEADLINE_SECONDS) is not None
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    "said",
    [
        b'{"hello": 0, "token": "wrong"}\n',
        b'{"hello": 0}\n',
        b'{"hello": 7, "token": "0123456789abcdef"}\n',
        b'{"hello": "0", "token": "0123456789abcdef"}\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1, 2]\n",
        b"\xff\xfe\n",
        b"x" * (2 << 20),
    ],
)
def test_strangers_are_hung_up_on(own, said):
    own.mesh.connect({0: "127.0.0.1:1"}, TOKEN, on_loss=own.losses.append)
    address = Address.parse(own.mesh.address)
    with socket.create_connection((address.host, address.port), DEADLINE_SECONDS) as caller:
        caller.settimeout(DEADLINE_SECONDS)
        try:
            caller.sendall(said)
            assert caller.recv(1) == b""
        except ConnectionError:
            pass
    assert own.losses == []
    assert own.mesh.beats() == {}


def test_a_stranger_cannot_take_the_place_of_a_connected_worker(own, other):
    meet(own, other)
    address = Address.parse(own.mesh.address)
    with socket.create_connection((address.host, address.port), DEADLINE_SECONDS) as caller:
        caller.settimeout(DEADLINE_SECONDS)
        caller.sendall(b'{"hello": 0, "token": "0123456789abcdef"}\n')
        assert caller.recv(1) == b""
    other.tell("step")
    wait_until(lambda: own.mesh.beats()[0].begun == 2)


def test_who_cannot_be_reached_is_said(own):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    assert own.mesh.connect({0: f"127.0.0.1:{closed}"}, TOKEN, on_loss=own.losses.append) == [0]


def test_closing_ends_the_thread(own, other):
    own.connect(other)
    own.mesh.close()
    wait_until(lambda: not any(one.name == "tfdist-peers" for one in threading.enumerate()))


def test_long_messages_are_sent_whole_and_come_in_parts():
    """More than the system takes at once."""
    messages = [{"text": "x" * 900_000, "number": number} for number in range(10)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = Connection(socket.create_connection(server.getsockname()))
        receiver = Connection(server.accept()[0])
    received: list[dict] = []

    def receive() -> None:
        wait_until(lambda: received.extend(receiver.receive()[0]) or len(received) == len(messages))

    thread = threading.Thread(target=receive)
    for message in messages:
        sender.send(message)
    thread.start()
    sender.flush(DEADLINE_SECONDS)
    sender.close()
    thread.join()
    receiver.close()
    assert received == messages
