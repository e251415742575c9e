"""`host:port`, IPv6 in brackets: parsed and checked in one place."""

from __future__ import annotations

import enum
import re
import socket
from dataclasses import dataclass

from tfdist.errors import ClusterError

_MAX_PORT = 65535
_BRACKETED = re.compile(r"^\[(?P<host>[^\[\]]+)\]:(?P<port>.*)$")
_PLAIN = re.compile(r"^(?P<host>[^:\[\]/]+):(?P<port>[^:]*)$")


class Answer(enum.Enum):
    """What comes back when a connection is asked for."""

    LISTENS = "a server takes connections"
    REFUSES = "the machine is there, no server listens"
    NONE = "the machine is out of reach"


@dataclass(frozen=True)
class Address:
    """Where one task listens.

    Args:
        host: Name or IP address, IPv6 without its brackets.
        port: From 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def listens(self, timeout_seconds: float = 1.0) -> bool:
        """Whether a server takes connections there."""
        return self.answer(timeout_seconds) is Answer.LISTENS

    def answer(self, timeout_seconds: float = 1.0) -> Answer:
        """What comes back from there."""
        try:
            socket.create_connection((self.host, self.port), timeout_seconds).close()
        except ConnectionRefusedError:
            return Answer.REFUSES
        except OSError:
            return Answer.NONE
        return Answer.LISTENS

    @classmethod
    def parse(cls, text: object, field: str = "address") -> Address:
        """Reads `host:port` or `[ipv6]:port`.

        Args:
            text: What was given.
            field: Where it was given, for the error message.

        Raises:
            ClusterError: If it's anything else.

        Example:
            >>> Address.parse("[::1]:2222").port
            2222
        """
        if not isinstance(text, str):
            raise ClusterError(
                f"An address must be a string 'host:port'. Received: {field}={text!r}. "
                f"Write for example '10.0.0.1:2222'."
            )
        match = _BRACKETED.match(text) or _PLAIN.match(text)
        if match is None:
            raise ClusterError(f"An address must be 'host:port'. Received: {field}={text!r}. {_remedy(text)}")
        return cls(match["host"], _parse_port(match["port"], field, text))


def _parse_port(port: str, field: str, text: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise ClusterError(
            f"The port of an address must be a number. Received: {field}={text!r} (port {port!r}). "
            f"Write for example '{text[: len(text) - len(port)]}2222'."
        )
    number = int(port)
    if not 1 <= number <= _MAX_PORT:
        raise ClusterError(
            f"The port of an address must be from 1 to {_MAX_PORT}. "
            f"Received: {field}={text!r} (port {number}). Choose a free port in that range."
        )
    return number


def _remedy(text: str) -> str:
    if "://" in text:
        return "Drop the scheme (the protocol goes in 'rpc_layer')."
    if text.count(":") > 1 and "[" not in text:
        return "Put an IPv6 host in brackets, for example '[::1]:2222'."
    if ":" not in text and text.strip():
        return f"Add the port, for example '{text}:2222'."
    return "Write for example '10.0.0.1:2222' or '[::1]:2222'."
