"""Programs that list hosts, as a person runs them."""

from __future__ import annotations

import threading
import time

import pytest

from tfdist.cluster.lifeline import Lifeline
from tfdist.errors import LaunchError
from tfdist.launch.elastic.discovery import Discovery, HostScript, HostsFile

pytestmark = pytest.mark.unit

A, B = "localhost", "127.0.0.1"


def script(job, text: str) -> None:
    path = job.folder / "hosts.sh"
    new = job.folder / "hosts.sh.new"
    new.write_text(f"#!/bin/sh\n{text}\n")
    new.chmod(0o755)
    new.replace(path)


def test_a_script_lists_the_hosts(job):
    script(job, f"echo noise >&2; echo {A}; echo {B}:$1 '# by hand'")
    job.launch("--host_discovery=./hosts.sh 2")
    job.wait_for(A, B, B, attempts=1)
    job.wait_for_steps(1)
    script(job, f"echo {A}")
    job.wait_for(A, attempts=2)
    job.finish()


@pytest.mark.parametrize(
    "text, said",
    [
        ("echo oh dear >&2; exit 3", "exit code 0. Received: 3 from './hosts.sh', which said: oh dear. Run it by hand"),
        ("sleep 100", "must answer within 0.5 s. Received: none from './hosts.sh', which was killed"),
        ("echo a b", "Received: 'a b' in line 1 of ./hosts.sh"),
        ("echo a; echo a", "Received: 'a' again in line 2 of ./hosts.sh"),
        ("kill -9 $$", "Received: -9 from"),
    ],
)
def test_a_script_that_is_wrong_at_the_start_is_an_error(job, text, said):
    script(job, text)
    job.launch("--host_discovery=./hosts.sh", "--discovery_timeout=0.5")
    code, err = job.end()
    assert code == 2
    assert said in err
    assert job.seen() == []


@pytest.mark.parametrize("text", ["sleep 100", "exit 1", "echo -x", "while true; do echo a; done"])
def test_a_script_that_breaks_later_changes_nothing(job, text):
    """And neither the output of tasks nor the launcher waits for it."""
    script(job, f"echo {A}")
    job.launch("--host_discovery=./hosts.sh", "--discovery_timeout=0.3")
    job.wait_for(A, attempts=1)
    script(job, text)
    job.wait_for_steps(60)
    assert job.finish().count("the job goes on with the hosts that it knows") == 1
    assert len(job.seen()) == 1


@pytest.mark.parametrize(
    "options, said",
    [
        (["--host_discovery=./nope.sh"], "Received: host_discovery='./nope.sh'. Check the path"),
        (["--host_discovery=./no'pe"], "quoted as in a shell (No closing quotation)"),
        (["--host_discovery=true", "--hosts_file=hosts"], "host_discovery='true', hosts_file='hosts'"),
        (["--hosts_file=hosts", "--workers=2"], "workers=2 with min_workers=1. Leave --workers out"),
        (["--hosts_file=hosts", "--remote_shell="], "remote_shell=''"),
        (["--hosts_file=nope"], "(No such file or directory). Received: hosts_file='nope'"),
        (["--hosts_file=."], "(Is a directory)"),
    ],
)
def test_the_options_are_checked(launch, options, said):
    process = launch("--min_workers=1", "--max_workers=4", *options, body="")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said in err


def test_elastic_options_need_an_elastic_job(launch):
    for options, said in (
        (["--min_workers=2"], "Received: max_workers=None"),
        (["--reset_limit=2"], "Received: reset_limit=2 without"),
        (["--elastic_accumulation"], "Received: elastic_accumulation=True without"),
        (["--settle_seconds=2"], "Received: settle_seconds=2.0 without"),
    ):
        _, err = launch(*options, body="").communicate(timeout=60)
        assert said in err


def read(discovery: Discovery, at: float) -> list[str]:
    """Reads once."""
    discovery.poll(at)
    return [host.name for host in discovery.hosts]


def test_a_change_counts_when_it_was_read_twice_in_a_row(tmp_path):
    path = tmp_path / "hosts"
    discovery = Discovery(HostsFile(path), 1.0)
    with pytest.raises(LaunchError, match="No such file"):
        discovery.poll(0.0)
    path.write_text("a")
    assert read(discovery, 1.0) == ["a"]  # the first at once
    path.write_text("a\nb")
    assert [read(discovery, at) for at in (1.9, 2.0, 2.9, 3.0)] == [["a"], ["a"], ["a"], ["a", "b"]]
    for at, text in ((4.0, "a"), (5.0, "a\nb"), (6.0, "a"), (7.0, "")):
        path.write_text(text)
        assert read(discovery, at) == ["a", "b"]
    assert read(discovery, 8.0) == []


def test_a_list_is_fresh_when_what_it_says_counts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a")
    discovery = Discovery(HostsFile(path), 1.0)
    discovery.poll(1.0)
    assert discovery.is_fresh(1.0) and not discovery.is_fresh(1.5)
    path.write_text("b")
    discovery.hurry()
    discovery.poll(1.5)
    assert not discovery.is_fresh(1.5)  # a change that has to be read again
    discovery.poll(2.5)
    assert discovery.is_fresh(2.5)
    path.unlink()
    discovery.poll(3.5)
    assert discovery.is_fresh(3.5)  # there's nothing better to wait for


def test_a_script_that_is_removed_changes_nothing(job):
    script(job, f"echo {A}")
    job.launch("--host_discovery=./hosts.sh")
    job.wait_for(A, attempts=1)
    (job.folder / "hosts.sh").unlink()
    job.wait_for_steps(60)
    assert "the job goes on with the hosts that it knows. The host discovery must" in job.finish()


def test_beside_threads_a_script_that_can_not_be_started_is_an_error_too():
    """There the child's start fails in this process."""

    def start() -> None:
        lifeline = Lifeline()
        try:
            with pytest.raises(LaunchError, match=r"\(No such file or directory\). Received: host_discovery='./nope"):
                Discovery(HostScript(["./nope.sh"], lifeline, 1.0), 1.0).poll(0.0)
            seen.append(True)
        finally:
            lifeline.close()

    seen: list[bool] = []
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert seen == [True]


def test_a_script_that_is_asked_again_is_ended_first():
    lifeline = Lifeline()
    try:
        source = HostScript(["sleep", "100"], lifeline, 100.0)
        for _ in range(2):
            source.ask(time.monotonic())
            assert source.take(time.monotonic()) is None
        source.close()
        assert source.take(time.monotonic()) is None
    finally:
        lifeline.close()
