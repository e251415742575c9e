"""One script on all tasks: worker and ps tasks serve until the chief is done, has failed or is gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.warm_processes import QUIET
from tfdist.cluster.ports import HeldPorts

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import json, os, pathlib, sys

task = json.loads(os.environ["TF_CONFIG"])["task"]
name = f"{task['type']}-{task['index']}"
pathlib.Path(f"here-{name}").touch()
import keras, tensorflow as tf, tfdist

try:
    strategy = tfdist.ParameterServerStrategy()
except SystemExit as end:
    pathlib.Path(f"ended-{name}").write_text(str(end.code))
    raise
assert task["type"] == "chief", task
with strategy.scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
"""
BATCHES = "tf.data.Dataset.from_tensors((tf.ones([4, 1]), tf.ones([4, 1])))"
#: Trains until it is ended; the file appears in the middle of it.
ENDLESS = f"""
class Notes(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 20:
            pathlib.Path("in-the-middle").touch()

model.fit({BATCHES}.repeat(), steps_per_epoch=1_000_000_000, callbacks=[Notes()], verbose=0)
"""
TRAINS = f"""
model.fit({BATCHES}.repeat(10), epochs=2, verbose=0)
pathlib.Path("iterations").write_text(str(int(model.optimizer.iterations)))
"""


def script(folder: Path, chief: str) -> Path:
    path = folder / "script.py"
    path.write_text(SCRIPT + textwrap.dedent(chief))
    return path


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **QUIET, "PYTHONPATH": path, **more}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], dict[str, subprocess.Popen[bytes]]]]:
    """`start(chief)` runs the script as a chief, two workers and a ps, each with its TF_CONFIG and nothing else."""
    tasks: dict[str, subprocess.Popen[bytes]] = {}
    with HeldPorts(4) as held, contextlib.ExitStack() as logs:

        def start_all(chief: str) -> dict[str, subprocess.Popen[bytes]]:
            path = script(tmp_path, chief)
            addresses = [f"127.0.0.1:{port}" for port in held.ports]
            cluster = {"chief": addresses[:1], "worker": addresses[1:3], "ps": addresses[3:]}
            held.release_for_servers()
            for job, index in (("chief", 0), ("worker", 0), ("worker", 1), ("ps", 0)):
                name, config = f"{job}-{index}", json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})
                log = logs.enter_context((tmp_path / f"{name}.log").open("wb"))
                tasks[name] = subprocess.Popen(
                    [sys.executable, str(path)],
                    env=environment(TF_CONFIG=config),
                    cwd=tmp_path,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            return tasks

        yield start_all
        for task in tasks.values():
            task.kill()
            task.wait(timeout=30)


def codes(tasks: dict[str, subprocess.Popen[bytes]], seconds: float) -> dict[str, int | None]:
    """How they exited; None for those that didn't in time."""
    deadline = time.monotonic() + seconds
    for task in tasks.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            task.wait(max(0.0, deadline - time.monotonic()))
    return {name: task.poll() for name, task in tasks.items()}


def logs_of(folder: Path) -> str:
    return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in folder.glob("*.log"))


def without_chief(tasks: dict[str, subprocess.Popen[bytes]]) -> dict[str, subprocess.Popen[bytes]]:
    return {name: task for name, task in tasks.items() if name != "chief-0"}


def test_launch_runs_one_script_on_all_tasks(tmp_path):
    """Each worker and ps ends by itself with 0, which the script notes, before the launcher would end it."""
    script(tmp_path, TRAINS)
    command = [sys.executable, "-m", "tfdist", "launch", "--workers=2", "--ps=1", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "iterations").read_text() == "20"
    ended = {path.name: path.read_text() for path in tmp_path.glob("ended-*")}
    assert ended == {"ended-worker-0": "0", "ended-worker-1": "0", "ended-ps-0": "0"}


def test_all_tasks_exit_with_0_when_the_chief_is_done(start, tmp_path):
    """With TF_CONFIG alone, as under Kubernetes or Slurm."""
    tasks = start(TRAINS)
    assert codes(tasks, 150) == dict.fromkeys(tasks, 0), logs_of(tmp_path)
    assert (tmp_path / "iterations").read_text() == "20"


def test_tasks_fail_soon_after_their_chief_was_killed(start, wait_until, tmp_path):
    """It can't tell them, so they find that nobody listens, in 8 s at most; a busy machine takes more to end them."""
    tasks = start(ENDLESS)
    wait_until(lambda: (tmp_path / "in-the-middle").exists() or tasks["chief-0"].poll() is not None, seconds=150)
    assert tasks["chief-0"].poll() is None, logs_of(tmp_path)
    assert codes(without_chief(tasks), 0) == dict.fromkeys(without_chief(tasks)), "they serve"
    tasks["chief-0"].send_signal(signal.SIGKILL)
    found = codes(without_chief(tasks), 30)
    assert found == dict.fromkeys(without_chief(tasks), 1), logs_of(tmp_path)
    for name in without_chief(tasks):
        said = re.search(
            r"is gone: for (\d+) s the machine is there, no server listens", (tmp_path / f"{name}.log").read_text()
        )
        assert said is not None, logs_of(tmp_path)
        assert int(said[1]) <= 8


def test_tasks_exit_with_1_when_the_chief_raises(start, tmp_path):
    tasks = start(f"{TRAINS}\nraise RuntimeError('the cause')")
    assert codes(tasks, 150) == dict.fromkeys(tasks, 1), logs_of(tmp_path)
    assert "RuntimeError: the cause" in (tmp_path / "chief-0.log").read_text()
    for name in without_chief(tasks):
        log = (tmp_path / f"{name}.log").read_text()
        assert "Traceback" not in log, "the cause is the chief's to tell"
        assert "is gone" not in log, "they were told"
