"""Free ports that stay ours until the server that was promised them has taken them.

Asking the kernel for a free port and closing the socket at once leaves a gap of seconds (TensorFlow
is still starting) in which any process may be given the same port. So the port is held instead: the
socket stays bound, with SO_REUSEADDR and without listening. On Linux that keeps the port out of
what the kernel hands out, for bind(0) and for outgoing connections alike, while a server that sets
SO_REUSEADDR itself, as gRPC does, may still bind and listen on it. (SO_REUSEPORT wouldn't do:
TensorFlow switches it off for its servers.) A restarted server finds its port free again.

Elsewhere the bound socket would keep the server out too, so there it's closed by `release()` just
before the tasks start, and the gap remains.
"""

from __future__ import annotations

import socket
import sys
from types import TracebackType

_HOLDS_FOR_SERVERS = sys.platform.startswith("linux")


class HeldPorts:
    """Free ports of this machine, held until closed. A context manager.

    Args:
        count: How many.

    Example:
        >>> with HeldPorts(2) as held:
        ...     start_servers_on(held.ports)
    """

    def __init__(self, count: int) -> None:
        self._sockets = [_bind_any() for _ in range(count)]
        self.ports: tuple[int, ...] = tuple(s.getsockname()[1] for s in self._sockets)

    def release_for_servers(self) -> None:
        """Call just before servers start; does nothing where they can bind a held port."""
        if not _HOLDS_FOR_SERVERS:
            self.close()

    def close(self) -> None:
        """Gives the ports back."""
        for held in self._sockets:
            held.close()

    def __enter__(self) -> HeldPorts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _bind_any() -> socket.socket:
    # On all interfaces, since TensorFlow's servers listen on all, whatever host their address has.
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("", 0))
    return held
