"""The list of hosts: `host[:slots]` a line, checked before anything is done with a name."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
import socket
from dataclasses import dataclass

from tfdist.errors import LaunchError

# Names become arguments of a remote shell: nothing that could be an option, a user, a path or a second word.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", re.ASCII)
_LINE = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::(?P<slots>.*))?", re.DOTALL)
_MAX_SLOTS = 1024

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Host:
    """A machine that may run workers.

    Args:
        name: Host name or IP address, IPv6 without its brackets.
        slots: How many workers it may run.
    """

    name: str
    slots: int = 1

    def __str__(self) -> str:
        return f"{self.name} ({self.slots})"


def parse_hosts(text: str, source: str) -> list[Host]:
    """Reads a list of hosts; empty lines and what follows a # are left out.

    Args:
        text: The list.
        source: Where it comes from, for messages.

    Raises:
        LaunchError: A line is no `host[:slots]`, or a host comes twice; the message says which line.
    """
    hosts: dict[str, Host] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        host = _parse(entry, f"line {number} of {source}")
        if host.name in hosts:
            raise LaunchError(
                f"Each host must be on the list once. Received: {host.name!r} again in line {number} of {source}. "
                f"Write one line with all its slots: {host.name}:{host.slots + hosts[host.name].slots}"
            )
        hosts[host.name] = host
    return list(hosts.values())


def _parse(entry: str, where: str) -> Host:
    match = _LINE.fullmatch(entry)
    name = match["name"] if match else entry
    if match is None or not _is_name(name):
        raise LaunchError(
            f"A host must be a name or an IP address, with its slots behind a colon. Received: {entry!r} in {where}. "
            f"Write for example worker-3:2, 10.0.0.7 or [fe80::7]:2."
        )
    slots = match["slots"]
    if slots is None:
        return Host(name.strip("[]"))
    if not (slots.isascii() and slots.isdigit() and 1 <= int(slots[:9]) <= _MAX_SLOTS):
        raise LaunchError(
            f"A host's slots must be a number from 1 to {_MAX_SLOTS}. Received: {entry!r} in {where}. "
            f"Write for example {name}:2; leave out a host that has none."
        )
    return Host(name.strip("[]"), int(slots))


def _is_name(name: str) -> bool:
    if name.startswith("["):
        with contextlib.suppress(ValueError):
            # A zone ("%eth0") may hold anything.
            return "%" not in name and bool(ipaddress.IPv6Address(name[1:-1]))
        return False
    return _NAME.fullmatch(name) is not None


@functools.lru_cache(maxsize=4096)
def is_here(name: str) -> bool:
    """Whether a host of the list is this machine."""
    own = socket.gethostname().lower()
    if name.lower() in {"localhost", own, own.partition(".")[0]}:
        return True
    return any(address.is_loopback or _is_own_address(address) for address in _addresses(name))


@functools.lru_cache(maxsize=4096)
def machine_of(name: str) -> str:
    """The same for all names of one machine, as far as they can be looked up here."""
    if is_here(name):
        return "127.0.0.1"
    return next(map(str, _addresses(name)), name)


def is_loopback(name: str) -> bool:
    """Whether another machine that connects to this name reaches itself."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name.lower() == "localhost"


def _addresses(name: str) -> list[_Address]:
    with contextlib.suppress(ValueError):
        return [ipaddress.ip_address(name)]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError:  # whoever connects to it will say so
        return []
    return [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]


def _is_own_address(address: _Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    # Only addresses of this machine can be bound.
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))
        return True
    return False
