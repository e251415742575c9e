"""Workers meet before TensorFlow connects them: who is missing, who is another job's, who runs other code.

TensorFlow's own start waits for an hour for a worker that doesn't come, without a word, and without letting another
thread of the process speak. So the workers meet here first, on the chief's own port, which TensorFlow takes afterwards.

Order of events
    1. The chief listens; the others call until it does. It greets them with a nonce.
    2. Each sends its index, its card (what the others are to know of it) and a proof that it knows the job's token.
    3. When all are here, the chief compares the facts on the cards. All are told the addresses and a token, or why not.

    | what is wrong                           | what is said                                                    |
    |-----------------------------------------|-----------------------------------------------------------------|
    | a worker or the chief doesn't come      | every REPORT_SECONDS who is missing; at the time-out an error   |
    | a host that nobody knows                | the same, with that reason                                      |
    | the chief's port is another program's   | the same, with that reason, on the others; an error on the chief|
    | a fact differs                          | WorkersDisagreeError on all: the fact, both values              |
    | another token                           | ClusterError on that worker; the chief waits on                 |
    | a worker goes before all are here       | it is waited for again: it may be started again                 |

Messages are JSON, a line each (`tfdist.cluster.peers.connection`).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import select
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tfdist.cluster.address import Address
from tfdist.cluster.checks.network import check_own, check_peer
from tfdist.cluster.differences import first_difference
from tfdist.cluster.peers.connection import Connection
from tfdist.cluster.spec import Cluster
from tfdist.errors import ClusterError, WorkersDisagreeError

#: Tasks of a job start some seconds apart, or minutes where machines have to be found for them.
REPORT_SECONDS = 10.0
#: The job's token, the same for all tasks; `tfdist launch` makes one for a job on one machine.
TOKEN_VARIABLE = "TFDIST_JOB_TOKEN"
_CALL_SECONDS = 3.0
_AGAIN_SECONDS = 0.25
_GREETING_SECONDS = 10.0


@dataclass(frozen=True)
class Card:
    """What a worker says of itself.

    Args:
        facts: what must be the same on all, by names for messages.
        peer_address: where it listens for the others while the job runs.
        clock: seconds since 1970, when it is sent.
    """

    facts: Mapping[str, str]
    peer_address: str
    clock: float = 0.0


@dataclass(frozen=True)
class Meeting:
    """What came of it.

    Args:
        peer_addresses: of all workers, by their index.
        token: that only they know.
        clocks_ahead_seconds: by index, how far clocks are ahead of the chief's; known to the chief.
    """

    peer_addresses: Mapping[int, str]
    token: str
    clocks_ahead_seconds: Mapping[int, float] = field(default_factory=dict)


def meet(cluster: Cluster, card: Card, *, timeout_seconds: float, say: Callable[[str], None]) -> Meeting:
    """Returns when all workers are here.

    Args:
        cluster: as this task sees it.
        card: this worker's.
        timeout_seconds: how long to wait for the others.
        say: takes what there is to say while waiting.

    Raises:
        ClusterError: this task can't listen, somebody doesn't come, or the token is another.
        WorkersDisagreeError: a fact differs; names it.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if cluster.worker_index == 0:
        return _Chief(cluster, card, token, say).meet(time.monotonic() + timeout_seconds, timeout_seconds)
    return _Worker(cluster, card, token, say).meet(time.monotonic() + timeout_seconds, timeout_seconds)


def check_own_port(cluster: Cluster) -> None:
    """Refuse a port on which this task can't listen.

    Raises:
        ClusterError: another process has it, or only the system's administrator may take it.
    """
    if cluster.address is None:
        return
    address = Address.parse(cluster.address)
    # TensorFlow listens on all interfaces, so the host may be a name that leads here through a gateway.
    finding = check_own(Address("0.0.0.0", address.port))
    if finding.is_problem:
        said = finding.said.replace(f"0.0.0.0:{address.port}", str(address))
        raise ClusterError(
            f"Expected: a port on which {cluster.task} can listen. Received: {address}, {finding.subject}: {said}. "
            f"{finding.fix}"
        )


def _addresses(cluster: Cluster) -> list[tuple[str, Address]]:
    """Name and address of each worker, by index."""
    return [(str(task), Address.parse(cluster.at(task).address)) for task in cluster.worker_tasks]


def _proof(token: str, nonce: str) -> str:
    return hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest()


class _Reports:
    """Says something every REPORT_SECONDS."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._begun = say, time.monotonic()
        self._next_at = self._begun + REPORT_SECONDS

    def look(self, what: Callable[[], str]) -> str:
        """What was said, if it was time for it."""
        if time.monotonic() < self._next_at:
            return ""
        self._next_at = time.monotonic() + REPORT_SECONDS
        said = f"waited {time.monotonic() - self._begun:.0f} s for {what()}"
        self._say(said)
        return said


@dataclass
class _Caller:
    """Who has called the chief.

    Attributes:
        nonce: that it was greeted with.
        index: of the worker that it is, once it has said so.
    """

    nonce: str
    index: int | None = None


class _Chief:
    """Waits for all."""

    def __init__(self, cluster: Cluster, card: Card, token: str, say: Callable[[str], None]) -> None:
        self._workers, self._token = _addresses(cluster), token
        self._cards, self._clocks_ahead_seconds = {0: card}, dict[int, float]()
        self._reports = _Reports(say)
        self._selector = selectors.DefaultSelector()
        self._callers: dict[Connection, _Caller] = {}

    def meet(self, deadline: float, timeout_seconds: float) -> Meeting:
        listener = socket.create_server(("", self._workers[0][1].port), backlog=128)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        try:
            while len(self._cards) < len(self._workers):
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"Expected: all {len(self._workers)} workers within {timeout_seconds:.0f} s. Received no sign "
                        f"of {self._missing()}. Start the same script there, and look at its output."
                    )
                for key, _ in self._selector.select(_AGAIN_SECONDS):
                    self._accept(listener) if key.fileobj is listener else self._hear(key.fileobj)
                if said := self._reports.look(self._missing):
                    self._tell({"waiting": said})
            self._compare()
            addresses, token = {index: card.peer_address for index, card in self._cards.items()}, secrets.token_hex(16)
            self._tell({"met": addresses, "token": token})
            return Meeting(addresses, token, self._clocks_ahead_seconds)
        finally:
            for connection in self._callers:
                connection.flush(_CALL_SECONDS)
                connection.close()
            listener.close()
            self._selector.close()

    def _missing(self) -> str:
        gone = [place for index, place in enumerate(self._workers) if index not in self._cards]
        return "; ".join(f"{name} at {address}{_unknown(address)}" for name, address in gone)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection = Connection(listener.accept()[0])
            caller = _Caller(secrets.token_hex(16))
            connection.send({"tfdist": "rendezvous", "nonce": caller.nonce})
            self._callers[connection] = caller
            self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: Any) -> None:
        try:
            messages, is_open = connection.receive()
        except ValueError:
            messages, is_open = [], False
        for message in messages:
            why_not = self._take(self._callers[connection], message)
            if why_not:
                connection.send({"refused": why_not})
                is_open = False
        if not is_open:
            caller = self._callers.pop(connection)
            if caller.index is not None:
                del self._cards[caller.index]
            self._selector.unregister(connection)
            connection.close()

    def _take(self, caller: _Caller, message: Mapping[str, Any]) -> str:
        """What is wrong with who calls."""
        index, proof = message.get("worker"), str(message.get("proof"))
        if not hmac.compare_digest(proof.encode(), _proof(self._token, caller.nonce).encode()):
            return f"Expected: the job's token in {TOKEN_VARIABLE}. Received: another. Set the same on all tasks."
        if not isinstance(index, int) or not 0 < index < len(self._workers):
            return f"Expected: a worker from 1 to {len(self._workers) - 1}. Received: {index!r}. Correct TF_CONFIG."
        if index in self._cards:
            return (
                f"Expected: one task that is {self._workers[index][0]}. Received: two. End the one that is too many, "
                "or correct task.index in TF_CONFIG."
            )
        try:
            card = Card(**message["card"])
        except (KeyError, TypeError):
            return "Expected: the same version of tfdist on all workers. Received: a card of another one."
        caller.index = index
        self._cards[index], self._clocks_ahead_seconds[index] = card, card.clock - time.time()
        return ""

    def _compare(self) -> None:
        difference = first_difference({index: card.facts for index, card in self._cards.items()}, worker=0)
        if difference is None:
            return
        fact, found = difference
        why = (
            f"Workers do not agree on the {fact} at the start. Expected: the same on every worker. Received: {found}. "
            "Run the same script with the same packages on every task."
        )
        self._tell({"differ": why})
        raise WorkersDisagreeError(why)

    def _tell(self, message: dict[str, Any]) -> None:
        for connection, caller in self._callers.items():
            if caller.index is not None:
                connection.send(message)


class _Worker:
    """Calls the chief."""

    def __init__(self, cluster: Cluster, card: Card, token: str, say: Callable[[str], None]) -> None:
        self._index, self._card, self._token, self._say = cluster.worker_index, card, token, say
        self._name, self._chief = _addresses(cluster)[0]
        self._num_workers = cluster.num_workers
        self._reports = _Reports(say)
        self._why = "it has not been called"
        self._unread: list[dict[str, Any]] = []

    def meet(self, deadline: float, timeout_seconds: float) -> Meeting:
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self._chief.host, self._chief.port), _CALL_SECONDS) as called:
                    meeting = self._introduce(called, deadline)
            except OSError:
                finding = check_peer(self._name, self._chief, _CALL_SECONDS)
                self._why, meeting = f"{finding.said}. {finding.fix}", None
            if meeting is not None:
                return meeting
            self._reports.look(lambda: f"{self._name}: {self._why}")
            time.sleep(_AGAIN_SECONDS)
        raise ClusterError(
            f"Expected: all {self._num_workers} workers within {timeout_seconds:.0f} s. Received: {self._name}: "
            f"{self._why}"
        )

    def _introduce(self, called: socket.socket, deadline: float) -> Meeting | None:
        """What came of it; None if the chief is gone, or isn't one."""
        connection, self._unread = Connection(called), []
        greeting = self._next(connection, min(deadline, time.monotonic() + _GREETING_SECONDS))
        if greeting is None or greeting.get("tfdist") != "rendezvous":
            self._why = f"what listens at {self._chief} is no chief that waits for workers. Is it another job's port?"
            return None
        proof, card = _proof(self._token, str(greeting.get("nonce"))), {**asdict(self._card), "clock": time.time()}
        connection.send({"worker": self._index, "proof": proof, "card": card})
        self._why = f"it has answered at {self._chief}, and waits for others"
        while (message := self._next(connection, deadline)) is not None:
            if "waiting" in message:
                self._say(f"{self._name} has {message['waiting']}")
            elif "refused" in message:
                raise ClusterError(str(message["refused"]))
            elif "differ" in message:
                raise WorkersDisagreeError(str(message["differ"]))
            elif "met" in message:
                return Meeting({int(index): address for index, address in message["met"].items()}, message["token"])
        return None

    def _next(self, connection: Connection, deadline: float) -> dict[str, Any] | None:
        """A message; None if none comes."""
        is_open = True
        while not self._unread and is_open and (left := deadline - time.monotonic()) > 0:
            # A long message comes in parts.
            if select.select([connection], [], [], left)[0]:
                try:
                    self._unread, is_open = connection.receive()
                except ValueError:
                    return None
        return self._unread.pop(0) if self._unread else None


def _unknown(address: Address) -> str:
    try:
        socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return f", a host that is not known. Check the name {address.host!r}, or use its IP address"
    return ""
