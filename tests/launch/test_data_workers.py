"""`tfdist launch --data_workers=2`: a tf.data service beside the tasks, whose workers may die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.unit

PROGRAM = """
import json, os, sys, time
import numpy as np
import tfdist
from tfdist.data import ShardOptions, TFRecordWriter, read_tfrecords

index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
pattern = f"part-{index}*"
with TFRecordWriter(f"part-{index}", {"y": tfdist.data.Tensor((), "int64")}, num_shards=2) as writer:
    for y in range(1000):
        writer.write(y=y)
data = read_tfrecords(pattern, batch_size=4, shuffle=True, shard=ShardOptions())
for epoch in range(2):
    seen = []
    for batch in data:
        seen += batch["y"].numpy().tolist()
        if len(seen) == 40 and epoch == 0:
            open(f"reading-{index}", "w").close()
            while not os.path.exists("go"): time.sleep(0.01)
    print(f"epoch {epoch}: {len(seen)} records, {len(set(seen))} different")
print(os.environ["TFDIST_DATA_SERVICE"])
"""


@pytest.fixture
def launched(tmp_path):
    started = []

    def start(*options: str, program: str = PROGRAM) -> subprocess.Popen:
        (tmp_path / "script.py").write_text(program)
        command = [sys.executable, "-m", "tfdist", "launch", *options, "script.py"]
        started.append(
            subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def data_workers(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [one for one in children if {"worker", "tfdist.data.service.process"} <= set(command_of(one))]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return []


def test_tasks_read_by_data_workers_of_which_one_is_killed(launched, tmp_path):
    process = launched("--workers=2", "--data_workers=2", "--log_dir=logs")
    wait_for(lambda: all((tmp_path / f"reading-{index}").exists() for index in range(2)))
    before = data_workers(process)
    assert len(before) == 2
    os.kill(before[0].pid, signal.SIGKILL)
    wait_for(lambda: len(data_workers(process)) == 2 and before[0] not in data_workers(process))
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    for epoch in range(2):
        assert out.count(f"epoch {epoch}: 1000 records, 1000 different") == 2
    assert len(set(re.findall(r"grpc://127.0.0.1:\d+", out))) == 1
    assert re.search(r"data/[01]: killed by SIGKILL; it is started again", err)
    logs = {path.name for path in Path(tmp_path / "logs").iterdir()}
    assert {"data-dispatcher.log", "data-0.log", "data-1.log"} < logs and logs & {"data-0-1.log", "data-1-1.log"}
    assert not any(one.is_running() for one in before[1:]), "they end with the job"


def test_data_workers_that_can_not_stay_end_the_job(launched, tmp_path):
    """Here because they find another `tfdist.data.service.process` to run, which fails."""
    package = tmp_path / "shadow" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError('no such thing here')")
    program = "import time\nwhile True: time.sleep(1)"
    process = launched("--data_workers=1", f"--env=PYTHONPATH={package.parent}", program=program)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "failed first" in err and "no such thing here" in err and "data/" in err


def test_the_number_is_checked(launched):
    process = launched("--data_workers=-1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "data_workers must be at least 0" in err
