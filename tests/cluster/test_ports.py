from __future__ import annotations

import socket

import pytest

from tfdist.cluster.ports import HeldPorts

pytestmark = pytest.mark.unit


def listen_like_grpc(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("0.0.0.0", port))
    server.listen()
    return server


def test_a_server_can_listen_on_a_held_port_again_and_again():
    with HeldPorts(1) as held:
        for _ in range(3):
            with listen_like_grpc(held.ports[0]), socket.create_connection(("127.0.0.1", held.ports[0]), 10):
                pass


def test_nobody_else_is_given_a_held_port():
    with HeldPorts(20) as held, HeldPorts(500) as others:
        assert len({*held.ports, *others.ports}) == 520
        with socket.socket() as plain, pytest.raises(OSError, match="in use"):
            plain.bind(("", held.ports[0]))


def test_closed_ports_are_free_again():
    with HeldPorts(1) as held:
        pass
    with socket.socket() as plain:
        plain.bind(("", held.ports[0]))
