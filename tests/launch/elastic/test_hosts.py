from __future__ import annotations

import re
import socket

import pytest

from tfdist.errors import LaunchError
from tfdist.launch import ElasticOptions, LaunchOptions
from tfdist.launch.elastic.hosts import Host, is_here, is_loopback, machine_of, parse_hosts
from tfdist.launch.elastic.members import HostRecords, Members, choose
from tfdist.launch.elastic.workers import workers_of
from tfdist.launch.progress import ProgressFiles

pytestmark = pytest.mark.unit


def test_a_list_of_hosts():
    text = "a\n\n  b.example.com:2  # the big one\n#c\n10.0.0.7:1024\n[fe80::7]:3\n[::1]\r\nA_1-x\n"
    assert parse_hosts(text, "x") == [
        *(Host("a"), Host("b.example.com", 2), Host("10.0.0.7", 1024)),
        *(Host("fe80::7", 3), Host("::1"), Host("A_1-x")),
    ]
    assert parse_hosts("", "x") == []


@pytest.mark.parametrize(
    "line",
    [
        *("-oProxyCommand=touch$IFS/x", "--help", "a;reboot", "$(reboot)", "`reboot`", "a b", "a&b", "a|b", "a>b"),
        *("user@a", "/bin/sh", "a/b", "..", ".a", "a.", "a-", "a'", 'a"', "a\\", "ä", "*", "[::1", "[a]", "[]:2"),
        *("[fe80::1%$(reboot)]", "x" * 254, ":2", "a\tb", "%h"),
    ],
)
def test_names_that_are_none(line):
    with pytest.raises(LaunchError, match=r"A host must be a name or an IP address") as caught:
        parse_hosts(f"good\n{line}", "./hosts.sh")
    assert f"Received: {line!r} in line 2 of ./hosts.sh" in str(caught.value)


@pytest.mark.parametrize("slots", ["", "0", "-1", "two", "1.5", "1025", "1" * 400, "²", "2:2", "$(id)", " 2"])
def test_slots_that_are_none(slots):
    with pytest.raises(LaunchError, match="slots must be a number from 1 to 1024"):
        parse_hosts(f"a:{slots}", "hosts")


def test_a_host_twice():
    with pytest.raises(LaunchError, match=r"'a' again in line 3 of hosts. Write one line with all its slots: a:5"):
        parse_hosts("a:2\nb\na:3", "hosts")


def test_this_machine():
    assert all(map(is_here, ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", socket.gethostname())))
    # From a network for documentation, which no machine has.
    assert not any(map(is_here, ("203.0.113.1", "2001:db8::1")))
    assert [name for name in ("localhost", "127.3.0.1", "::1", "192.0.2.1", "a") if is_loopback(name)] == [
        "localhost",
        "127.3.0.1",
        "::1",
    ]


def test_members():
    hosts = [Host("a", 2), Host("b"), Host("c", 3)]
    assert choose(hosts, 4, Members()).hosts == ("a", "a", "b", "c")
    # Those that were there come first, in their order.
    assert choose(hosts, 4, Members(("c", "gone", "b"))).hosts == ("c", "c", "c", "b")
    assert choose([], 4, Members(("a",))).hosts == ()
    assert Members(("a", "c", "c")).gone_from([Host("c", 2), Host("a")]) == []
    assert Members(("a", "c", "c")).gone_from([Host("c", 1), Host("b")]) == ["a", "c"]
    assert str(Members(("a", "c", "a"))) == "a (2), c (1)"


def test_hosts_are_left_out_for_a_while():
    """Worked out by hand: after 2 failures in a row for 10 s, then after each for 20, 40, ... s."""
    hosts, records = [Host("a"), Host("b")], HostRecords(2, 10.0)
    assert records.note_failure("a", 0.0) is None
    records.note_good(["a", "b"])
    assert records.note_failure("a", 1.0) is None
    assert records.note_failure("a", 2.0) == 10.0
    assert [host.name for host in records.usable(hosts, 11.9)] == ["b"]
    assert records.usable(hosts, 12.0) == hosts
    assert records.note_failure("a", 13.0) == 20.0
    records.note_good(["a"])
    assert records.note_failure("a", 40.0) is None
    assert records.note_failure("a", 41.0) == 40.0
    assert [records.note_failure("a", 41.0) for _ in range(9)][-1] == 3600.0


@pytest.mark.parametrize(
    "options, received",
    [
        ({"min_workers": 0}, "min_workers=0, max_workers=4"),
        ({"min_workers": 5}, "min_workers=5, max_workers=4"),
        ({"host_discovery": ()}, "host_discovery='', hosts_file=''"),
        ({"hosts_file": "hosts"}, "host_discovery='true', hosts_file='hosts'"),
        ({"host_discovery": ("./nope.sh", "x")}, "host_discovery='./nope.sh'"),
        ({"discovery_seconds": 0.0}, "discovery_seconds=0.0"),
        ({"discovery_timeout_seconds": float("nan")}, "discovery_timeout_seconds=nan"),
        ({"elastic_timeout_seconds": float("inf")}, "elastic_timeout_seconds=inf"),
        ({"settle_seconds": -1.0}, "settle_seconds=-1.0"),
        ({"host_failures": 0}, "host_failures=0"),
        ({"host_cooldown_seconds": -1.0}, "host_cooldown_seconds=-1.0"),
        ({"reset_limit": -1}, "reset_limit=-1"),
        ({"remote_shell": ()}, "remote_shell=''"),
    ],
)
def test_options_that_are_wrong(options, received):
    with pytest.raises(LaunchError) as caught:
        ElasticOptions(**{"min_workers": 1, "max_workers": 4, "host_discovery": ("true",), **options})
    assert f"Received: {received}" in str(caught.value)


@pytest.mark.parametrize(
    "options, received",
    [
        ({"workers": 2}, "workers=2 with min_workers=1"),
        ({"ps": 1}, "ps=1 with min_workers=1"),
        ({"chief": True}, "chief=True"),
        ({"data_workers": 1}, "data_workers=1"),
        ({"node_addresses": ("a",)}, "node_addresses=('a',)"),
        ({"port_base": 65533}, "port_base=65533"),
    ],
)
def test_what_an_elastic_job_has_not(options, received):
    elastic = ElasticOptions(min_workers=1, max_workers=4, host_discovery=("true",))
    with pytest.raises(LaunchError) as caught:
        LaunchOptions(elastic=elastic, **options)
    assert f"Received: {received}" in str(caught.value)
    assert LaunchOptions(elastic=elastic).most_restarts is None
    assert LaunchOptions(elastic=elastic, max_restarts=2).most_restarts == 2


@pytest.mark.parametrize(("workers", "expected"), [(1, "4"), (2, "2"), (3, "2"), (4, "1")])
def test_few_workers_cut_batches_if_they_are_to(workers, expected, tmp_path):
    for accumulate in (True, False):
        elastic = ElasticOptions(1, 4, hosts_file=tmp_path / "hosts", accumulate=accumulate)
        with workers_of(
            Members(("localhost",) * workers), ["true"], LaunchOptions(elastic=elastic), ProgressFiles(tmp_path)
        ) as specs:
            found = [spec.env.get("TFDIST_MICRO_BATCHES") for spec in specs]
        assert found == [expected if accumulate else None] * workers


def test_all_names_of_a_machine_share_its_ports(tmp_path):
    """192.0.2.1 is for documentation; the number is another way to write it."""
    elastic = ElasticOptions(1, 4, hosts_file=tmp_path / "hosts")
    members = Members(("192.0.2.1", "3221225985", "192.0.2.2", "unknown.invalid"))
    with workers_of(members, ["true"], LaunchOptions(elastic=elastic), ProgressFiles(tmp_path)) as specs:
        told = specs[0].opening.decode()
    addresses = ["192.0.2.1:2222", "3221225985:2223", "192.0.2.2:2222", "unknown.invalid:2222"]
    assert re.findall(r"[\w.]+:222\d", told)[:4] == addresses, told
    assert machine_of("localhost") == machine_of("127.0.0.2") == "127.0.0.1"
