"""Elastic jobs whose hosts come and go: real processes, on hosts that are all names of this machine."""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.unit

A, B, C = "localhost", "127.0.0.1", "127.0.0.2"
SAVED = "the same command goes on with it (exit code 75)"


def test_hosts_are_added(job):
    """Without a restart to its name: a change is no failure."""
    job.hosts(A)
    job.launch("--max_restarts=0")
    job.wait_for(A, attempts=1)
    job.wait_for_steps(3)
    job.hosts(B, A, f"{C}:2")
    job.wait_for(A, B, C, C, attempts=2)
    job.wait_for_steps(3)
    err = job.finish()
    assert "there are slots for 3 more: all tasks are told to save and to end" in err
    assert "4 workers, on localhost (1), 127.0.0.1 (1), 127.0.0.2 (2)" in err
    job.expect_every_step_once()
    assert {world for _, world in job.record()} == {1, 4}


def test_hosts_are_removed(job):
    """The chief's, so that another worker is the chief; and slots of one that stays."""
    job.hosts(A, f"{B}:2")
    job.launch("--max_restarts=0")
    job.wait_for(A, B, B, attempts=1)
    job.wait_for_steps(3)
    job.hosts(f"{B}:2")
    job.wait_for(B, B, attempts=2)
    job.hosts(B)
    job.wait_for(B, attempts=3)
    job.wait_for_steps(1)
    err = job.finish()
    assert f"hosts have gone or have fewer slots ({A}): all tasks are told to save" in err
    assert f"hosts have gone or have fewer slots ({B}): all tasks are told to save" in err
    job.expect_every_step_once()


def test_a_host_is_replaced_and_unused_ones_may_go(job):
    job.hosts(A, B, C)
    job.launch("--max_workers=2")
    job.wait_for(A, B, attempts=1)
    job.hosts(B, A)
    job.wait_for_steps(50)  # a second, in which the list is read five times
    job.hosts(A, C)
    job.wait_for(A, C, attempts=2)
    job.finish()
    assert len(job.seen()) == 2


def test_a_list_that_is_wrong_for_a_moment_changes_nothing(job):
    """A file that is read while it's written, or that is gone, or holds something else."""
    job.hosts(A, B)
    job.launch("--discovery_seconds=0.5", "--reset_limit=0")
    job.wait_for(A, B, attempts=1)
    job.hosts("not a host")
    job.wait_for_steps(60)
    (job.folder / "hosts").unlink()
    job.wait_for_steps(60)
    job.hosts(A, B)
    job.wait_for_steps(60)
    err = job.finish()
    assert "the job goes on with the hosts that it knows. A host must be a name" in err
    assert err.count("Received: 'not a host' in line 1 of hosts") == 1, "said once, however often it's read"
    assert "Received: hosts_file='hosts'" in err
    assert len(job.seen()) == 1


def test_a_host_that_is_missing_from_one_reading_only_stays(job):
    """Here from every other one, as by a script that asks an unreliable service."""
    script = f"#!/bin/sh\necho {A}\nif [ -e odd ]; then rm odd; else touch odd; echo {B}; fi\n"
    (job.folder / "hosts.sh").write_text(script)
    (job.folder / "hosts.sh").chmod(0o755)
    (job.folder / "odd").touch()
    job.launch("--host_discovery=./hosts.sh", "--min_workers=1")
    job.wait_for(A, attempts=1)
    job.wait_for_steps(100)
    job.finish()
    assert len(job.seen()) == 1


def test_too_few_hosts_are_waited_for(job, wait_until):
    """At the start, and later; the time begins anew."""
    job.hosts()
    with open(job.folder / "err", "w") as err:
        job.launch("--min_workers=2", stderr=err)
        said = "at least 2 workers are wanted; slots: none: waiting up to 50 s for more"
        wait_until(lambda: said in (job.folder / "err").read_text())
        job.hosts(A, B)
        job.wait_for(A, B, attempts=1)
        job.hosts(A)
        said = "slots: 1, on localhost (1): waiting"
        wait_until(lambda: said in (job.folder / "err").read_text())
        job.hosts(C, A)
        job.wait_for(A, C, attempts=2)
        job.finish()
    job.expect_every_step_once()


def test_too_few_hosts_for_too_long(job):
    job.hosts(A)
    job.launch("--min_workers=2", "--elastic_timeout=1")
    code, err = job.end()
    assert code == 1
    assert "slots: 1, on localhost (1) after 1 s: the job has failed. Add hosts to the list" in err
    assert job.seen() == []


def test_too_many_changes(job):
    job.hosts(A)
    job.launch("--reset_limit=1")
    job.wait_for(A, attempts=1)
    job.hosts(A, B)
    job.wait_for(A, B, attempts=2)
    job.hosts(B)
    code, err = job.end()
    assert code == 1
    assert "the hosts have changed 2 times, and --reset_limit=1 allows 1" in err
    assert len(job.seen()) == 2
    job.expect_every_step_once()


def test_tasks_that_do_not_save_are_ended_all_the_same(job):
    job.hosts(A)
    job.launch(fault="signal.signal(signal.SIGTERM, signal.SIG_DFL)")
    job.wait_for(A, attempts=1)
    job.hosts(A, B)
    job.wait_for(A, B, attempts=2)
    assert "no task said that it saved" in job.finish()


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job(job, signum, code):
    job.hosts(A, B)
    job.launch()
    job.wait_for(A, B, attempts=1)
    job.process.send_signal(signum)
    found, err = job.end()
    assert found == code, err
    assert (SAVED in err) == (code == 75)
    assert len(job.seen()) == 1


@pytest.mark.parametrize("is_saved, code", [(True, 75), (False, 143)])
def test_a_signal_ends_the_wait_for_hosts(job, wait_until, is_saved, code):
    """The exit code says whether there's something to go on with."""
    job.hosts(*([A] if is_saved else []))
    with open(job.folder / "err", "w") as err:
        job.launch(stderr=err)
        if is_saved:
            job.wait_for(A, attempts=1)
            job.hosts()
        wait_until(lambda: "waiting up to" in (job.folder / "err").read_text())
        job.process.terminate()
        assert job.end()[0] == code
    said = (job.folder / "err").read_text()
    assert "SIGTERM: no task runs" in said
    assert (SAVED in said) == is_saved


def test_tasks_that_save_already_get_no_second_sigterm(job, wait_until):
    """It would end them before they are done."""
    fault = """
def save(*_):
    note("sigterms", host)
    while not os.path.exists("saved"): time.sleep(0.01)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
"""
    job.hosts(A)
    with open(job.folder / "err", "w") as err:
        job.launch(fault=fault, stderr=err)
        job.wait_for(A, attempts=1)
        job.hosts(B)
        wait_until((job.folder / "sigterms").exists)
        job.process.terminate()
        wait_until(lambda: "SIGTERM: ending all tasks" in (job.folder / "err").read_text())
        (job.folder / "saved").touch()
        assert job.end()[0] == 75
    assert (job.folder / "sigterms").read_text().split() == [A]
