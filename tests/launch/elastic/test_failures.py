"""Workers of elastic jobs that fail, and hosts that are left out for it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.unit

A, B = "localhost", "127.0.0.1"
ALWAYS = "if host == '127.0.0.1': "
ONCE = "if host == '127.0.0.1' and starts_on(host) == 1: "
#: When all have begun, so that every attempt is seen whole; each has another port.
TOGETHER = """
mine = config["cluster"]["worker"][0]
note("here", mine)
while open("here").read().split().count(mine) < world: time.sleep(0.01)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
RAISE = "raise ValueError(f'broken {os.getpid()}')"


@pytest.mark.parametrize("fault, said", [(KILL, "killed by SIGKILL"), (RAISE, "ValueError: broken")])
def test_one_worker_fails_once(job, fault, said):
    """All are started again, on the same hosts; it needs no --max_restarts."""
    job.hosts(A, B)
    job.launch(fault=TOGETHER + ONCE + fault)
    job.wait_for(A, B, attempts=2)
    err = job.finish()
    assert "worker/1 failed first" in err and said in err
    assert "all tasks are started again (restart 1), after a wait of 1 s" in err
    assert job.seen() == [(A, B)] * 2


def test_restarts_can_be_limited(job):
    job.hosts(A, B)
    job.launch("--max_restarts=1", fault=TOGETHER + ALWAYS + KILL)
    code, err = job.end()
    assert code == 137
    assert "(restart 1 of 1)" in err
    assert job.seen() == [(A, B)] * 2


def test_a_host_that_fails_again_and_again_is_left_out_for_a_while(job, wait_until):
    """Two attempts in a row, the second failure here being the first again, as of a broken device. Then it's used
    again, when it may be."""
    job.hosts(A, B)
    twice = "if host == '127.0.0.1' and starts_on(host) <= 2: "
    with open(job.folder / "err", "w") as err:
        options = ("--host_failures=2", "--host_cooldown=3")
        job.launch(*options, fault=TOGETHER + twice + "raise ValueError('broken')", stderr=err)
        job.wait_for(A, attempts=3)
        job.wait_for(A, B, attempts=4)
        job.finish()
    said = (job.folder / "err").read_text()
    assert "host 127.0.0.1 has failed too often (--host_failures=2): it gets no workers for 3 s" in said
    assert "there are slots for 1 more" in said
    assert "Restarting will not help" not in said
    assert job.seen() == [(A, B), (A, B), (A,), (A, B)]
    job.expect_every_step_once()


def test_the_job_goes_on_without_a_host_that_stays_broken(job):
    job.hosts(A, B)
    job.launch("--host_failures=1", "--host_cooldown=600", fault=TOGETHER + ALWAYS + RAISE)
    job.wait_for(A, attempts=2)
    job.finish()
    assert job.seen() == [(A, B), (A,)]


def test_a_host_is_not_blamed_for_a_peer_that_it_lost(job):
    job.hosts(A, B)
    lost = "raise type('UnavailableError', (Exception,), {})('no answer')"
    job.launch("--host_failures=1", "--host_cooldown=600", fault=TOGETHER + ONCE + lost)
    job.wait_for(A, B, attempts=2)
    err = job.finish()
    assert "worker/1 failed first" in err and "has failed too often" not in err
    assert job.seen() == [(A, B)] * 2


def test_all_hosts_fail(job):
    """None is left that is good enough."""
    job.hosts(A, B)
    options = ("--host_failures=1", "--host_cooldown=600", "--elastic_timeout=1")
    job.launch(*options, fault=TOGETHER + "time.sleep(0.2 * index); sys.exit(3)")
    code, err = job.end()
    assert code == 1
    assert all(f"host {host} has failed too often" in err for host in (A, B))
    assert "slots: none (left out for their failures: localhost, 127.0.0.1) after 1 s: the job has failed" in err
    assert job.seen() == [(A, B), (B,)]


def test_a_bug_that_hosts_share_ends_the_job(job):
    """The second failure is the first again, on another host."""
    job.hosts(A, B)
    job.launch("--host_failures=1", "--host_cooldown=600", fault=TOGETHER + "raise ValueError('a bug')")
    code, err = job.end()
    assert code == 1
    assert "failed in the same way twice: ValueError: a bug" in err
    assert len(job.seen()) == 2


def test_a_bug_ends_the_job_of_one_host(job):
    job.hosts(A)
    job.launch(fault="raise ValueError('a bug')")
    code, err = job.end()
    assert code == 1
    assert "failed in the same way twice: ValueError: a bug" in err
    assert job.seen() == [(A,)] * 2


@pytest.mark.parametrize(
    "fault, said",
    [(KILL, "no failure: its host is gone from the list"), ("sys.exit(75)", "hosts have gone or have fewer slots")],
)
def test_a_worker_that_goes_with_its_host_has_not_failed(job, fault, said):
    """It ends before the list says so, as when a machine is taken away; a restart would be one too many."""
    job.hosts(A, B)
    new = f"open('hosts.new', 'w').write({A!r}); os.replace('hosts.new', 'hosts'); "
    job.launch("--max_restarts=0", "--discovery_seconds=0.5", fault=TOGETHER + ALWAYS + new + fault)
    job.wait_for(A, attempts=2)
    err = job.finish()
    assert said in err
    assert job.seen() == [(A, B), (A,)]


def test_the_launcher_is_killed(job, wait_until):
    """Its tasks end, and the same command goes on."""
    job.hosts(A, B)
    job.launch(fault="note('pids', str(os.getpid()))")
    job.wait_for(A, B, attempts=1)
    job.wait_for_steps(3)
    job.process.kill()
    pids = (job.folder / "pids").read_text().split()
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    job.launch()
    job.wait_for(A, B, attempts=2)
    job.finish()


def is_running(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
