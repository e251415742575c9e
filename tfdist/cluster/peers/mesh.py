"""One worker's connections to all others, and the thread that looks after them."""

from __future__ import annotations

import contextlib
import hmac
import os
import select
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfdist.cluster.address import Address
from tfdist.cluster.peers.beats import Beat, StepClock
from tfdist.cluster.peers.connection import Connection
from tfdist.cluster.peers.stacks import python_stacks

BEAT_SECONDS = 1.0
#: After a good-bye: workers that end at the same step don't end at the same moment.
LEAVING_SECONDS = 3.0
#: A worker that is in no hurry to accept is one whose port a firewall closes.
_CALL_SECONDS = 10.0
_HELLO_SECONDS = 10.0
_DEAF_SECONDS = 3.5
#: For others to hear a good-bye; they look several times a second.
_HEARD_SECONDS = 2.0

_GOES_ON = (
    "this worker goes on: all workers must make the same number of steps. Where model.stop_training is set, set it on "
    "all, from logs, which are equal on all"
)

_meshes: weakref.WeakSet[PeerMesh] = weakref.WeakSet()


@dataclass(frozen=True)
class Loss:
    """A worker that is gone.

    Args:
        worker: its index.
        why: in words.
        in_order: whether it has come to the end of its program.
    """

    worker: int
    why: str
    in_order: bool = False

    def __str__(self) -> str:
        return f"worker {self.worker} {self.why}"


@dataclass
class _Peer:
    """What is known of another worker.

    Attributes:
        connection: to it; None before it and after.
        heard_at: when it last said anything, on the clock of time.monotonic.
        beat: what it last said of itself.
        is_ahead: whether it has ended an epoch that goes on here.
        good_bye: why it ends, as it says; None as long as it doesn't.
        stack: what it answered to the question for its stack.
        answered: set when it has.
    """

    connection: Connection | None = None
    heard_at: float = 0.0
    beat: Beat = field(default_factory=Beat)
    is_ahead: bool = False
    good_bye: str | None = None
    stack: str = ""
    answered: threading.Event = field(default_factory=threading.Event)


class PeerMesh:
    """Knows of the other workers of a job.

    Args:
        index: this worker's.
        host: of this task's own address.
        clock: says how far this worker is.
    """

    def __init__(self, index: int, host: str, clock: StepClock) -> None:
        self._index, self._clock = index, clock
        self._listener = _listen(host)
        self._listener.setblocking(False)
        self.address = str(Address(host, self._listener.getsockname()[1]))
        self._selector = selectors.DefaultSelector()
        self._peers: dict[int, _Peer] = {}
        self._unknown: dict[Connection, float] = {}
        self._token = ""
        self._on_loss: Callable[[Loss], None] = lambda loss: None
        self._each_beat: Callable[[], None] = lambda: None
        self._losses: list[Loss] = []
        self._lost = threading.Event()
        self._closing = threading.Event()
        #: Held while a connection is between the system and the tables; a fork must not fall between them.
        self.between = threading.Lock()
        self._thread: threading.Thread | None = None
        _meshes.add(self)

    def connect(
        self,
        addresses: Mapping[int, str],
        token: str,
        *,
        on_loss: Callable[[Loss], None],
        each_beat: Callable[[], None] = lambda: None,
    ) -> list[int]:
        """Call the workers of lower index, and look after all connections from now on.

        Args:
            addresses: of the other workers' meshes, by their index.
            token: the job's.
            on_loss: called by a thread when a worker is gone, once for each.
            each_beat: called by that thread once a second.

        Returns:
            Those of lower index that can't be reached.
        """
        self._token, self._on_loss, self._each_beat = token, on_loss, each_beat
        self._peers = {index: _Peer() for index in addresses if index != self._index}
        unreachable = [index for index in self._peers if index < self._index and not self._call(index, addresses)]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="tfdist-peers", daemon=True)
        self._thread.start()
        return unreachable

    def _call(self, index: int, addresses: Mapping[int, str]) -> bool:
        address = Address.parse(addresses[index])
        try:
            called = socket.create_connection((address.host, address.port), _CALL_SECONDS)
        except OSError:
            return False
        connection = Connection(called)
        connection.send({"hello": self._index, "token": self._token})
        self._accept(index, connection)
        return True

    def _accept(self, index: int, connection: Connection) -> None:
        peer = self._peers[index]
        peer.connection, peer.heard_at = connection, time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ, index)

    # What others ask.

    def loss(self, wait_seconds: float = 0.0) -> Loss | None:
        """The first worker that was lost, waited for."""
        self._lost.wait(wait_seconds)
        return self._losses[0] if self._losses else None

    def silent_seconds(self) -> dict[int, float]:
        """How long the connected workers have said nothing, by their index."""
        now = time.monotonic()
        return {index: now - peer.heard_at for index, peer in self._peers.items() if peer.connection is not None}

    def beats(self) -> dict[int, Beat]:
        """What the connected workers last said of themselves, by their index."""
        return {index: peer.beat for index, peer in self._peers.items() if peer.connection is not None}

    def ask_stack(self, index: int) -> threading.Event:
        """Ask a worker for what its threads do; `stack_of` has the answer when the event is set."""
        peer = self._peers[index]
        peer.answered.clear()
        if peer.connection is not None:
            peer.connection.send({"stack": "?"})
        return peer.answered

    def stack_of(self, index: int) -> str:
        """The last answer of a worker that was asked."""
        return self._peers[index].stack

    def close(self, error: str = "") -> None:
        """Say good-bye and hang up.

        Args:
            error: what this worker failed with.
        """
        _meshes.discard(self)
        if self._closing.is_set():
            return
        self._closing.set()
        reason = f"failed with {error}" if error else "has ended"
        if self._losses:
            reason = f"ended because {self._losses[0]}"
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2 * BEAT_SECONDS)
        now = time.monotonic()
        # Who has called a moment ago isn't known yet; who says nothing won't hear.
        hearing = list(self._unknown)
        for peer in self._peers.values():
            if peer.connection is not None and now - peer.heard_at < _DEAF_SECONDS:
                hearing.append(peer.connection)
        for connection in hearing:
            connection.send({"good_bye": reason})
            connection.finish()
        _wait_until_read(hearing)
        self.abandon()

    def abandon(self) -> None:
        """Close all without a word, as a forked child does with what is its parent's."""
        self._closing.set()
        for connection in [*self._unknown, *(peer.connection for peer in self._peers.values())]:
            if connection is not None:
                connection.close()
        self._listener.close()
        with contextlib.suppress(OSError, RuntimeError):
            self._selector.close()

    # The thread.

    def _run(self) -> None:
        next_beat = 0.0
        while not self._closing.is_set():
            for key, _ in self._selector.select(BEAT_SECONDS / 4):
                self._handle(key)
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + BEAT_SECONDS
                self._beat(now)

    def _beat(self, now: float) -> None:
        own = self._clock.beat()
        message = {"begun": own.begun, "inside": own.inside_seconds, "ended": own.ended}
        for index, peer in self._peers.items():
            if peer.connection is not None:
                peer.connection.send(message, may_drop=True)
                self._check_round(index, peer)
        for connection, since in list(self._unknown.items()):
            if now - since > _HELLO_SECONDS:
                self._hang_up(connection)
        self._each_beat()

    def _check_round(self, index: int, peer: _Peer) -> None:
        ended = peer.beat.ended
        if ended is not None and not peer.is_ahead and self._clock.goes_on_after(ended):
            peer.is_ahead = True
            self._lose(Loss(index, f"has come to the end of an epoch after {ended} executions, while {_GOES_ON}"))

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            with self.between, contextlib.suppress(OSError):
                caller = Connection(self._listener.accept()[0])
                self._unknown[caller] = time.monotonic()
                self._selector.register(caller, selectors.EVENT_READ)
            return
        connection: Any = key.fileobj
        try:
            messages, is_open = connection.receive()
        except ValueError:
            messages, is_open = [], False
        if connection in self._unknown:
            self._introduce(connection, messages, is_open)
        else:
            self._hear(key.data, messages, is_open)

    def _introduce(self, connection: Connection, messages: list[dict[str, Any]], is_open: bool) -> None:
        """Who calls, says its first message."""
        if not messages and is_open:
            return
        hello = messages[0] if messages else {}
        index, token = hello.get("hello"), str(hello.get("token"))
        peer = self._peers.get(index) if isinstance(index, int) else None
        is_known = peer is not None and peer.connection is None
        if index is None or not is_known or not hmac.compare_digest(token.encode(), self._token.encode()):
            self._hang_up(connection)
            return
        with self.between:
            self._selector.unregister(connection)
            self._accept(index, connection)
            del self._unknown[connection]
        self._hear(index, messages[1:], is_open)

    def _hear(self, index: int, messages: list[dict[str, Any]], is_open: bool) -> None:
        for message in messages:
            self._take(self._peers[index], message)
        if not is_open:
            self._hung_up(index)

    def _take(self, peer: _Peer, message: dict[str, Any]) -> None:
        peer.heard_at = time.monotonic()
        if "begun" in message:
            peer.beat = Beat(message["begun"], message["inside"], message["ended"])
        elif "good_bye" in message:
            peer.good_bye = str(message["good_bye"])
        elif message.get("stack") == "?" and peer.connection is not None:
            peer.connection.send({"stack_is": python_stacks()})
        elif "stack_is" in message:
            peer.stack = str(message["stack_is"])
            peer.answered.set()

    def _hang_up(self, connection: Connection) -> None:
        self._unknown.pop(connection, None)
        self._selector.unregister(connection)
        connection.close()

    def _hung_up(self, index: int) -> None:
        peer = self._peers[index]
        connection, peer.connection = peer.connection, None
        if connection is not None:
            self._hang_up(connection)
        if self._closing.is_set():
            return
        if peer.good_bye == "has ended":
            timer = threading.Timer(
                LEAVING_SECONDS, self._lose, [Loss(index, f"has ended, while {_GOES_ON}", in_order=True)]
            )
            timer.daemon = True
            timer.start()
        else:
            self._lose(Loss(index, peer.good_bye or "was killed: its process has ended without a word"))

    def _lose(self, loss: Loss) -> None:
        if not self._closing.is_set():
            self._losses.append(loss)
            self._lost.set()
            self._on_loss(loss)


def _wait_until_read(connections: list[Connection]) -> None:
    """Those who have heard a good-bye hang up."""
    deadline = time.monotonic() + _HEARD_SECONDS
    while connections and time.monotonic() < deadline:
        ready, _, _ = select.select(connections, [], [], max(0.0, deadline - time.monotonic()))
        for connection in ready:
            with contextlib.suppress(ValueError):
                if connection.receive()[1]:
                    continue
            connections.remove(connection)


def _listen(host: str) -> socket.socket:
    try:
        family, _, _, _, where = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        return socket.create_server(where[:2], family=family, backlog=128)
    except OSError:
        # A name that leads here through a gateway, or that this machine itself doesn't know.
        return socket.create_server(("", 0), backlog=128)


def _before_fork() -> None:
    for mesh in list(_meshes):
        mesh.between.acquire()


def _after_fork() -> None:
    for mesh in list(_meshes):
        with contextlib.suppress(RuntimeError):  # made since
            mesh.between.release()


def _leave_to_parent() -> None:
    """A forked child must not keep connections open that its parent's death is to close."""
    _after_fork()
    for mesh in list(_meshes):
        mesh.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_leave_to_parent)
