"""An elastic job on two machines that reach each other by a real cable, ssh and TensorFlow's gRPC."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.helpers.networks import THERE, ip, two_networks
from tests.launch.elastic.test_training import finish, made, record, start
from tests.launch.programs.elastic_train import EPOCHS, STEPS

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(600)]
asyncssh = pytest.importorskip("asyncssh", reason="pip install asyncssh, for a server to log in to")

HERE = "10.99.1.1"
PORT = 2200


@pytest.fixture
def network() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces: of the launcher, and of the machine to log in to."""
    with two_networks() as (here, there, _):
        yield here, there


@pytest.fixture
def ssh(network: tuple[str, str], tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[str]:
    """A command that runs others over there."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("host", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(folder / name))
        key.write_public_key(str(folder / f"{name}.pub"))
        (folder / name).chmod(0o600)
    public = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[{THERE}]:{PORT} {public}")
    command = ["ip", "netns", "exec", network[1], sys.executable, "-m", "tests.launch.programs.ssh_server"]
    server = subprocess.Popen([*command, THERE, str(PORT), str(folder)])
    try:
        wait_until(lambda: (folder / "ready").exists() or server.poll() is not None)
        yield (
            f"ssh -F none -p {PORT} -i {folder / 'user'} -o UserKnownHostsFile={folder / 'known'} "
            "-o BatchMode=yes -o ServerAliveInterval=2 -o ServerAliveCountMax=2"
        )
    finally:
        server.kill()
        server.wait(30)


@pytest.fixture
def job(network: tuple[str, str], ssh: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`job(*options)` launches one whose hosts are in the file `hosts`."""
    started: list[subprocess.Popen] = []

    def launch(*options: str) -> subprocess.Popen:
        bounds = ["--min_workers=1", "--max_workers=2", f"--hosts_file={tmp_path / 'hosts'}"]
        quick = ["--discovery_seconds=0.2", "--settle_seconds=0.2", f"--remote_shell={ssh}"]
        inside = ("ip", "netns", "exec", network[0])
        started.append(start(tmp_path / "elastic", *bounds, *quick, *options, arguments=("--slowly",), inside=inside))
        return started[-1]

    yield launch
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def expect_quiet_result(folder: Path) -> None:
    """As in test_training.py: the same sums, in another order."""
    finish(start(folder / "quiet", "--workers=1"))
    found, expected = (dict(np.load(folder / name / "result.npz")) for name in ("elastic", "quiet"))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def steps(folder: Path) -> list[tuple[int, int]]:
    return [(epoch, batch) for _, epoch, batch in record(folder / "elastic")]


EVERY_STEP = [(epoch, batch) for epoch in range(EPOCHS) for batch in range(STEPS)]


def test_a_host_comes_and_goes(job, tmp_path, wait_until):
    (tmp_path / "hosts").write_text(f"{HERE}\n")
    process = job("--max_restarts=0")
    for step, listed in (((1, 1), f"{HERE}\n{THERE}\n"), ((2, STEPS - 1), f"{HERE}\n")):
        wait_until(lambda step=step: step in made(tmp_path / "elastic") or process.poll() is not None, 200)
        (tmp_path / "hosts").write_text(listed)
    finish(process)
    assert {size for size, _ in made(tmp_path / "elastic")} == {1, 2}
    assert steps(tmp_path) == EVERY_STEP
    expect_quiet_result(tmp_path)


def workers_there(there: str) -> list[psutil.Process]:
    found = []
    for pid in map(int, ip(f"netns pids {there}").split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if "tests.launch.programs.elastic_train" in process.cmdline():
                found.append(process)
    return found


def test_a_worker_over_there_is_killed(job, network, tmp_path, wait_until):
    """The one from the last checkpoint on is made again, to the same numbers."""
    (tmp_path / "hosts").write_text(f"{HERE}\n{THERE}\n")
    process = job("--max_restarts=1")
    wait_until(lambda: (2, 5) in made(tmp_path / "elastic") or process.poll() is not None, 200)
    for worker in workers_there(network[1]):
        os.kill(worker.pid, signal.SIGKILL)
    err = finish(process)
    assert "killed by SIGKILL" in err
    assert sorted(set(steps(tmp_path))) == EVERY_STEP
    expect_quiet_result(tmp_path)


@pytest.mark.parametrize("how", ["the launcher is killed", "the cable is pulled out"])
def test_nothing_is_left_over_there(how, job, network, tmp_path, wait_until):
    (tmp_path / "hosts").write_text(f"{HERE}\n{THERE}\n")
    process = job("--max_restarts=0")
    wait_until(lambda: (2, 5) in made(tmp_path / "elastic") or process.poll() is not None, 200)
    assert workers_there(network[1])
    if how == "the launcher is killed":
        process.kill()
    else:
        ip(f"-n {network[0]} link set here down")
    wait_until(lambda: not workers_there(network[1]), 150)
