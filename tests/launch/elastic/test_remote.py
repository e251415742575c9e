"""Tasks on other hosts, by a remote shell that stands in for ssh: this machine, without this process's environment."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.launch.elastic.test_failures import KILL, TOGETHER, is_running

pytestmark = pytest.mark.unit

#: Addresses that no machine has.
FAR, FARTHER = "203.0.113.1", "203.0.113.2"
# Like ssh: options, a host, one string for the login shell there, out of reach of a signal to the group here.
SHELL = """#!/bin/sh
[ "$1" = -x ] && [ "$2" = "two words" ] && shift 2 || exit 99
host=$1; shift
echo "$host: $*" >> "{folder}/commands"
[ -e "{folder}/unreachable-$host" ] && echo "no route to $host" >&2 && exit 255
cd /
exec setsid --wait env -i HOME=/nowhere PATH=/usr/bin:/bin sh -c "$*"
"""
#: Of folders, variables and arguments.
NASTY = 'it\'s a "$HOME" `id` $(id) \\ %h ; & | * x'


@pytest.fixture
def shell(tmp_path: Path) -> str:
    path = tmp_path / "remote shell"
    path.write_text(SHELL.format(folder=tmp_path))
    path.chmod(0o755)
    return f"--remote_shell='{path}' -x 'two words'"


@pytest.fixture
def far_job(job, shell):
    """`far_job(...)` launches a job on other hosts; its launcher isn't told of any of ours."""
    job.hosts(FAR, FARTHER)

    def launch(*options: str, **more) -> None:
        job.launch(shell, *options, **more)

    return launch


def test_tasks_get_what_they_need_and_nothing_is_interpreted(job, launch, shell, tmp_path):
    folder = tmp_path / NASTY
    folder.mkdir()
    (tmp_path / "hosts").write_text(f"{FAR}\n{FARTHER}:2\n")
    (folder / "script.py").write_text(
        "import json, os, sys\n"
        "config = json.loads(os.environ['TF_CONFIG'])\n"
        "print(json.dumps([config['task']['index'], config['cluster']['worker'], os.environ['TFDIST_HOST'],"
        " sys.argv[1:], os.getcwd(), os.environ['MINE'], os.environ['HOME'], os.environ.get('SECRET'),"
        " os.environ['TF_DETERMINISTIC_OPS'], sys.stdin.read()]))\n"
    )
    options = ["--min_workers=3", "--max_workers=3", "--hosts_file=../hosts", shell, f"--env=MINE={NASTY}"]
    env = {**os.environ, "SECRET": "ours", "TF_DETERMINISTIC_OPS": "1"}
    process = launch(*options, body="", cwd=folder, env=env, args=(NASTY, "--", ""))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    addresses = [f"{FAR}:2222", f"{FARTHER}:2222", f"{FARTHER}:2223"]
    rest = [[NASTY, "--", ""], str(folder), NASTY, "/nowhere", None, "1", ""]
    found = sorted(line.partition("] ")[2] for line in out.splitlines())
    assert [json.loads(line) for line in found] == [
        [index, addresses, host, *rest] for index, host in enumerate([FAR, FARTHER, FARTHER])
    ]
    commands = (tmp_path / "commands").read_text().splitlines()
    assert sorted(line.partition(":")[0] for line in commands) == [FAR, FARTHER, FARTHER]
    assert len({line.partition(": ")[2] for line in commands}) == 1, "only paths stand on the command line"
    assert commands[0].partition(": ")[2].startswith(f"exec {sys.executable} -I -S /")


def test_hosts_come_and_go(job, far_job):
    job.hosts(FAR)
    far_job("--max_restarts=0")
    job.wait_for(FAR, attempts=1)
    job.wait_for_steps(3)
    job.hosts(FAR, FARTHER)
    job.wait_for(FAR, FARTHER, attempts=2)
    job.hosts(FARTHER)
    job.wait_for(FARTHER, attempts=3)
    job.wait_for_steps(1)
    job.finish()
    job.expect_every_step_once()


@pytest.mark.parametrize(
    "fault, code, said",
    [
        (KILL, 137, "killed by SIGKILL"),
        ("sys.exit(7)", 7, "exit code 7"),
        ("raise ValueError('far away')", 1, "ValueError: far away"),
    ],
)
def test_how_a_remote_task_ended_is_known(job, far_job, fault, code, said):
    far_job("--max_restarts=0", fault=f"{TOGETHER}\nif index: {fault}")
    found, err = job.end()
    assert found == code
    assert "worker/1 failed first" in err and said in err


@pytest.mark.parametrize("batch, attempts", [("7", 2), ("starts_on(host)", 3)], ids=["same step", "other steps"])
def test_the_step_of_a_remote_task_is_known(job, far_job, batch, attempts):
    """It decides whether the same exception is the same failure; here on the only host."""
    fault = f"""
from tfdist.cluster.progress import ENVIRONMENT, ProgressFile, TrainingStep
ProgressFile(os.environ[ENVIRONMENT]).write(TrainingStep(1, {batch}))
import atexit
atexit.register(sys.stderr.write, "half a line")
raise ValueError("a bad record")
"""
    job.hosts(FAR)
    far_job("--max_restarts=2", fault=fault)
    code, err = job.end()
    assert (code, len(job.seen())) == (1, attempts)
    assert ("at the same step twice: ValueError: a bad record (at epoch 1, batch 7," in err) == (attempts == 2)
    assert "tfdist-step" not in err and err.count("    half a line\n") == attempts


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_reach_remote_tasks(job, far_job, signum, code):
    far_job(fault="signal.signal(signal.SIGINT, lambda *_: (note('interrupted', host), sys.exit(1)))")
    job.wait_for(FAR, FARTHER, attempts=1)
    job.process.send_signal(signum)
    assert job.end()[0] == code
    if signum == signal.SIGINT:
        assert sorted((job.folder / "interrupted").read_text().split()) == [FAR, FARTHER]


def test_remote_tasks_end_with_the_launcher(job, far_job, wait_until):
    """With all that they started; by the end of the connection alone, as over a network."""
    child = "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']).pid"
    far_job(fault=f"note('pids', str(os.getpid()) + ' ' + str({child}))")
    job.wait_for(FAR, FARTHER, attempts=1)
    wait_until(lambda: len((job.folder / "pids").read_text().split()) == 4)
    pids = (job.folder / "pids").read_text().split()
    assert all(map(is_running, pids))
    job.process.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def test_a_host_that_can_not_be_reached_is_left_out(job, far_job):
    (job.folder / f"unreachable-{FARTHER}").touch()
    far_job("--host_failures=1", "--host_cooldown=600")
    job.wait_for(FAR, attempts=1)
    err = job.finish()
    assert "worker/1 failed first: exit code 255" in err
    assert f"no route to {FARTHER}" in err


def test_a_name_that_means_this_machine_everywhere_is_refused_beside_others(job, far_job):
    job.hosts("localhost", FAR)
    far_job()
    code, err = job.end()
    assert code == 2
    assert "Received: host='localhost' beside other machines" in err
