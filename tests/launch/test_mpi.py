"""`tfdist launch --mpi`: tasks are MPI ranks, and everything else is as in any launch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.launching import finish
from tests.helpers.mpi_ranks import needs_mpi, run_ranks
from tests.helpers.networks import HERE, THERE, two_networks
from tfdist.cluster import Cluster, Task
from tfdist.errors import LaunchError
from tfdist.launch import LaunchOptions
from tfdist.launch.elastic.options import ElasticOptions
from tfdist.launch.mpi import find_mpiexec

pytestmark = pytest.mark.unit

RANKS = """
        from tfdist.cluster import mpi
        world = mpi.world()
"""


@needs_mpi
def test_tasks_are_ranks_in_their_order(launch):
    body = (
        RANKS
        + """
        print(f"{kind}/{index} is rank {world.Get_rank()}, sum {world.allreduce(world.Get_rank() + 1)}")
"""
    )
    code, out, err = finish(launch("--mpi", "--chief", "--workers=2", body=body))
    assert code == 0, err
    assert sorted(out.splitlines()) == [
        "[chief/0]  chief/0 is rank 0, sum 6",
        "[worker/0] worker/0 is rank 1, sum 6",
        "[worker/1] worker/1 is rank 2, sum 6",
    ]


@needs_mpi
def test_a_rank_that_dies_is_named_and_the_others_are_ended_by_the_launcher(launch):
    body = (
        RANKS
        + """
        world.Barrier()
        if index == 1: os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
"""
    )
    code, _, err = finish(launch("--mpi", "--workers=2", body=body))
    assert code == 128 + signal.SIGKILL, err
    assert "worker/1 failed first: killed by SIGKILL" in err
    assert "The others: worker/0 (ended by the launcher)." in err


@needs_mpi
def test_a_restart_has_new_ranks(launch, tmp_path):
    body = (
        RANKS
        + """
        again = os.path.exists("again")
        world.Barrier()
        if not again and index == 1:
            open("again", "w").close()
            raise SystemExit(3)
        print("sum", world.allreduce(1))
"""
    )
    code, out, err = finish(launch("--mpi", "--workers=2", "--max_restarts=1", body=body))
    assert code == 0, err
    assert "all tasks are started again (restart 1 of 1)" in err
    assert sorted(out.splitlines()) == ["[worker/0] sum 2", "[worker/1] sum 2"]


@needs_mpi
def test_ranks_find_each_other_without_tf_config_and_tensorflow(tmp_path):
    code = (
        "import sys, tfdist; cluster = tfdist.cluster.resolve(); assert cluster == tfdist.cluster.resolve()\n"
        f"with open(f'{tmp_path}/{{cluster.task.index}}', 'w') as file:\n"
        "    print(cluster.to_tf_config(), *{'tensorflow', 'numpy'} & set(sys.modules), file=file)"
    )
    run_ranks(["-c", code], ranks=2, log=tmp_path / "log", timeout_seconds=60)
    first, second = (Cluster.from_tf_config((tmp_path / str(index)).read_text()) for index in range(2))
    assert first.jobs == second.jobs and len(set(first.addresses("worker"))) == 2
    assert [first.task, second.task] == [Task("worker", 0), Task("worker", 1)]


@needs_mpi
def test_ranks_of_two_machines(tmp_path):
    """Two networks, and a remote shell that leads from one to the other."""
    version = subprocess.run([*find_mpiexec(), "--version"], capture_output=True, text=True, timeout=30)
    if "HYDRA" not in version.stdout:
        pytest.skip("needs MPICH's mpiexec, which takes any program for ssh")
    program = "import tfdist; print(tfdist.cluster.resolve().to_tf_config(), flush=True)"
    with two_networks() as (here, there, _):
        shell = tmp_path / "shell"
        skip = 'while [ "${1#-}" != "$1" ]; do shift; done; shift'  # options, and the host
        shell.write_text(f'#!/bin/sh\n{skip}\nip netns exec {there} sh -c "$*"\n')
        shell.chmod(0o755)
        options = f"-launcher ssh -launcher-exec {shell} -hosts {HERE},{THERE} -ppn 1 -n 2".split()
        command = ["ip", "netns", "exec", here, *find_mpiexec(), *options, sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    # What ranks print may come without a line break between.
    found, _ = json.JSONDecoder().raw_decode(done.stdout)
    addresses = found["cluster"]["worker"]
    hosts = [address.rpartition(":")[0] for address in addresses]
    assert hosts == ["10.99.1.1", THERE], "the first one's address on the cable, from which it reaches the other"


@needs_mpi
def test_a_rank_that_fails_ends_the_others(tmp_path):
    """Which wait for it in MPI_Finalize."""
    code = (
        "from tfdist.cluster import mpi; rank = mpi.world().Get_rank()\nif rank == 1: raise ValueError('a bad batch')"
    )
    with pytest.raises(AssertionError, match="ValueError: a bad batch"):
        run_ranks(["-c", code], ranks=2, log=tmp_path / "log", timeout_seconds=60)


def test_a_launcher_that_is_a_rank_does_not_pass_it_on(launch):
    env = {**os.environ, "PMI_RANK": "0", "PMI_SIZE": "2"}
    code, out, err = finish(launch("--workers=1", body='print(os.environ.get("PMI_RANK"))', env=env))
    assert code == 0, err
    assert out == "[worker/0] None\n"


@pytest.mark.parametrize(
    "mpiexec, says",
    [
        ("/no/mpiexec", "mpiexec must be a program, with options. Received: mpiexec='/no/mpiexec'"),
        (f"{sys.executable} -c 'print(41+1)' --", "Received: exit code 0 from .*which said: 42"),
    ],
)
def test_an_mpiexec_that_does_not_start_ranks(launch, mpiexec: str, says: str) -> None:
    code, _, err = finish(launch("--mpi", f"--mpiexec={mpiexec}", "--workers=2", body=""))
    assert code == 2
    assert re.search(says, err), err


@pytest.mark.parametrize(
    "options, says",
    [
        ({"mpi": True, "ps": 1}, r"Parameter servers talk gRPC\. Received: ps=1 with mpi"),
        ({"mpiexec": "mpirun"}, r"Received: mpiexec='mpirun' without mpi\. Add --mpi"),
        ({"mpi": True, "workers": 2, "nnodes": 2, "node_addresses": ("a", "b")}, "mpiexec -n 8 -hosts host0,host1"),
        ({"mpi": True, "elastic": ElasticOptions(min_workers=1, max_workers=2, hosts_file=Path("h"))}, "one machine"),
    ],
)
def test_what_does_not_go_with_mpi(options, says: str) -> None:
    with pytest.raises(LaunchError, match=says):
        LaunchOptions(**options)
