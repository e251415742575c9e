from __future__ import annotations

import os
import socket
import sys

import pytest

from tfdist.cluster.address import Address, Answer
from tfdist.coordination.connections import connections_to, limit_silence

pytestmark = [pytest.mark.unit, pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")]


@pytest.fixture
def joined():
    """An address that listens, and this process' connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with socket.create_connection(("127.0.0.1", server.getsockname()[1])) as connection:
            yield address, connection


def test_silence_is_limited_on_the_connection_itself_and_on_no_other(joined):
    address, connection = joined
    limit_silence(["127.0.0.1:1", "no.such.host.invalid:1"], 3.5)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    limit_silence([address], 3.5)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3500


def test_an_ipv4_address_behind_an_ipv6_socket_is_found(joined):
    """As gRPC makes them."""
    address, _ = joined
    with socket.socket(socket.AF_INET6) as mapped:
        mapped.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mapped.connect(("::ffff:127.0.0.1", int(address.rpartition(":")[2])))
        limit_silence([address], 2)
        assert mapped.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000


def test_no_file_stays_open(joined):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for connection in connections_to([joined[0]]):
            connection.close()
        limit_silence([joined[0]], 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_machine_that_is_there_refuses(joined):
    address, _ = joined
    assert Address.parse(address).answer() is Answer.LISTENS
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert Address("127.0.0.1", bound.getsockname()[1]).answer() is Answer.REFUSES
    assert Address("host.invalid", 1).answer() is Answer.NONE
