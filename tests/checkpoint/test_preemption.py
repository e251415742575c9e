"""SIGTERM to any worker: all save together and exit with 75, and the same command goes on to the same bits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import pytest

import tfdist
from tests.checkpoint.programs.train import STEPS
from tests.checkpoint.test_resume import expect_equal, run
from tests.conftest import poll
from tests.helpers.cluster_runner import ends_of, exit_codes, started
from tests.helpers.disks import make_read_only, small_disk
from tests.helpers.once import once
from tests.helpers.setups import WORKERS, features, labels
from tests.helpers.warm_processes import QUIET
from tfdist.checkpoint.files import CheckpointFiles
from tfdist.checkpoint.sigterm import SAME_NOTICE_SECONDS
from tfdist.cluster.exit_codes import PREEMPTED

PROGRAM = ["-m", "tests.checkpoint.programs.train"]
#: Of several workers, one may have begun the next step when another gets SIGTERM.
OR_NEXT = 1


def names(folder: Path) -> list[str]:
    """Of the checkpoints, the newest first; all are whole."""
    files = CheckpointFiles(folder / "checkpoints", 10)
    assert all(files.problem_of(name) is None for name in files.names())
    return files.names()


def logs_of(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted((folder / "logs").glob("*.log"))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`whole(setup, *options)` is the folder of a training that nobody disturbed."""

    @once
    def train(setup: str, *options: str) -> Path:
        folder = tmp_path_factory.mktemp(setup)
        run(setup, folder, *options)
        return folder

    return train


def preempt(setup: str, folder: Path, *options: str, step: str, later: int = 0) -> None:
    """Run until SIGTERM ends it; the newest checkpoint is the one of this step, or of up to `later` steps more."""
    before = names(folder)
    arguments = [*PROGRAM, setup, str(folder), "--signal=TERM", *options]
    codes = exit_codes(arguments, workers=WORKERS[setup], logs=folder / "logs")
    logs = logs_of(folder)
    assert codes == [PREEMPTED] * max(WORKERS[setup], 1), logs
    expect_saved(folder, before, step, later, every=6 if "--every_steps=6" in options else 5)
    for log in logs:
        assert f"training is saved in {folder / 'checkpoints' / names(folder)[0]}, and the same command" in log
        assert "SIGTERM came to" in log


def expect_saved(folder: Path, before: list[str], step: str, later: int, every: int) -> None:
    prefix, number = step.rsplit("-", 1)
    due = [f"{prefix}-{int(number) + more:06}" for more in range(later + 1)]
    newest, *rest = names(folder)
    assert newest in due and newest not in before
    assert all(one in before or is_scheduled(one, every) for one in rest), rest


def is_scheduled(name: str, every: int) -> bool:
    epoch, step = (int(number) for number in re.findall(r"\d+", name)[:2])
    return (STEPS * epoch + step) % every == 0


@pytest.mark.cluster
def test_one_process_again_and_again(tmp_path, whole):
    """On one device, and on two that accumulate, beside each other."""
    with ThreadPoolExecutor(2) as pool:
        chains = [pool.submit(chain, tmp_path, whole) for chain in (end_one_device, end_two_replicas)]
        for chain in chains:
            chain.result()


def end_one_device(tmp_path: Path, whole: Callable[..., Path]) -> None:
    """While its first step is traced, in validation, behind the last step of all."""
    folder = tmp_path / "one_device"
    for where, step in (
        ("trace,1", "epoch-0000-step-000001"),
        ("test,3", "epoch-0001-step-000000"),
        ("3,11", "epoch-0004-step-000000"),
    ):
        preempt("one_device", folder, f"--kill={where}", step=step)
    run("one_device", folder)
    expect_equal("one_device", folder, whole("one_device"))


def end_two_replicas(tmp_path: Path, whole: Callable[..., Path]) -> None:
    """In the middle of accumulating four micro-batches."""
    folder, options = tmp_path / "mirrored2", ["--micro_batches=4", "--epochs=2"]
    preempt("mirrored2", folder, *options, "--kill=0,6", step="epoch-0000-step-000007")
    run("mirrored2", folder, *options)
    expect_equal("mirrored2", folder, whole("mirrored2", *options))


@pytest.mark.cluster
def test_a_signal_to_any_worker_ends_all(tmp_path, whole):
    """To the other one, to the chief, to the launcher; in the middle of accumulating three micro-batches."""
    folder, options = tmp_path / "job", ["--micro_batches=3"]
    for victim, where, step in (("1", "0,6", "epoch-0000-step-000007"), ("0", "1,6", "epoch-0001-step-000007")):
        kill = [f"--kill={where}", f"--victims={victim}"]
        preempt("workers2", folder, *options, *kill, step=step, later=OR_NEXT)
        assert all(f"SIGTERM came to worker {victim}" in log for log in logs_of(folder))
    preempt_launcher(folder, *options, "--hold=2,7")
    assert names(folder)[0] == "epoch-0002-step-000008"
    run("workers2", folder, *options)
    expect_equal("workers2", folder, whole("workers2", *options))


def preempt_launcher(folder: Path, *options: str) -> None:
    """Run in `tfdist launch`, which gets SIGTERM while both workers wait behind a step."""
    command = [sys.executable, "-m", "tfdist", "launch", "--workers=2", *PROGRAM, "workers2", str(folder), *options]
    for exit_code in folder.glob("exit-*"):
        exit_code.unlink()
    with subprocess.Popen(command, env={**os.environ, **QUIET}) as launcher:
        try:
            poll(lambda: all((folder / f"holding-{worker}").exists() for worker in range(2)))
            launcher.terminate()
            poll(lambda: all((folder / f"signalled-{worker}").exists() for worker in range(2)))
            (folder / "go-on").touch()
            assert launcher.wait(60) == PREEMPTED
        finally:
            launcher.kill()
    assert [(folder / f"exit-{worker}").read_text() for worker in range(2)] == [str(PREEMPTED)] * 2


@pytest.mark.nightly
@pytest.mark.cluster
def test_local_sgd(tmp_path, whole):
    """A save averages, so this one comes where the other job saves too; both workers get SIGTERM in that step."""
    folder, options = tmp_path / "job", ["--local_steps=4", "--every_steps=6", "--epochs=1"]
    preempt("workers2", folder, *options, "--kill=0,5", "--victims=0,1", step="epoch-0000-step-000006")
    run("workers2", folder, *options)
    expect_equal("workers2", folder, whole("workers2", *options))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where checkpoints go, on a disk of its own."""
    with small_disk(tmp_path / "job" / "checkpoints", "9m") as folder:
        yield folder


@pytest.mark.cluster
def test_what_can_not_be_saved_is_an_error_on_all_workers(tmp_path, disk):
    folder = tmp_path / "job"
    arguments = [*PROGRAM, "workers2", str(folder), "--hold=0,7"]
    with started(arguments, workers=2, logs=folder / "logs") as tasks:
        poll(lambda: all((folder / f"holding-{worker}").exists() for worker in range(2)))
        # The one behind five steps may be in the making.
        poll(lambda: names(folder) == ["epoch-0000-step-000005"])
        poll(lambda: make_read_only(disk))
        tasks[1].terminate()
        poll(lambda: (folder / "signalled-1").exists())
        (folder / "go-on").touch()
        assert ends_of(tasks, folder / "logs") == [1, 1]
    assert all("Read-only file system" in log for log in logs_of(folder))
    assert names(folder) == ["epoch-0000-step-000005"]


@pytest.mark.cluster
def test_a_later_signal_ends_at_once(tmp_path):
    """Where a step takes too long; one that comes right behind the first is the same notice."""
    arguments = [*PROGRAM, "one_device", str(tmp_path), "--hold=0,2"]
    with started(arguments, workers=0, logs=tmp_path / "logs") as [task]:
        poll(lambda: (tmp_path / "holding-0").exists())
        began = time.monotonic()
        while task.poll() is None and time.monotonic() < began + 30:
            task.terminate()
            time.sleep(0.1)
        assert task.returncode == -signal.SIGTERM
        assert time.monotonic() - began > SAME_NOTICE_SECONDS


# In this process.


def fit(directory: Path, *others: Any, **options: Any) -> Any:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    checkpoint = tfdist.callbacks.Checkpoint(directory, **options)
    return model.fit(features(8), labels(8), batch_size=4, epochs=2, verbose=0, callbacks=[checkpoint, *others])


class Signals(keras.callbacks.Callback):
    """Sends SIGTERM to this process, and remembers what was there for it."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at, self.handlers = at, []

    def _look(self, at: str) -> None:
        self.handlers.append(signal.getsignal(signal.SIGTERM))
        if at == self._at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._look("batch")

    def on_train_end(self, logs: Any = None) -> None:
        self._look("end")


@pytest.fixture
def caught() -> Iterator[list[int]]:
    """The numbers of signals that came to a handler of the script's."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: found.append(signum))
    yield found
    signal.signal(signal.SIGTERM, before)


@pytest.mark.unit
def test_the_handler_that_was_there_is_put_back(tmp_path, caught):
    mine = signal.getsignal(signal.SIGTERM)
    looks = Signals("")
    fit(tmp_path / "a", looks)
    assert mine not in looks.handlers and signal.getsignal(signal.SIGTERM) == mine

    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyError("batch")

    with pytest.raises(KeyError):
        fit(tmp_path / "b", Fails())
    assert signal.getsignal(signal.SIGTERM) == mine
    os.kill(os.getpid(), signal.SIGTERM)
    assert caught == [signal.SIGTERM]


@pytest.mark.unit
def test_two_checkpoints_put_it_back_too(tmp_path, caught):
    mine = signal.getsignal(signal.SIGTERM)
    fit(tmp_path / "a", tfdist.callbacks.Checkpoint(tmp_path / "b"))
    assert signal.getsignal(signal.SIGTERM) == mine


@pytest.mark.unit
@pytest.mark.parametrize("at", ["batch", "end"])
def test_fit_exits_with_75(tmp_path, caught, at):
    """Also behind its last step, since what the script does next may take longer than there is time."""
    with pytest.raises(SystemExit) as end:
        fit(tmp_path, Signals(at), every_steps=100)
    assert end.value.code == PREEMPTED == os.EX_TEMPFAIL
    newest = CheckpointFiles(tmp_path, 3).newest_whole()
    assert newest == {"batch": "epoch-0000-step-000001", "end": "epoch-0002-step-000000"}[at]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, "nothing is to change the exit code now"
    assert not caught


@pytest.mark.unit
def test_it_can_be_left_out(tmp_path, caught):
    history = fit(tmp_path, Signals("batch"), save_on_sigterm=False)
    assert history.epoch == [0, 1] and set(caught) == {signal.SIGTERM}


@pytest.mark.unit
def test_threads_train_without(tmp_path, caught):
    """Only the main thread can catch signals."""
    mine, found = signal.getsignal(signal.SIGTERM), []
    looks = Signals("")
    thread = threading.Thread(target=lambda: found.append(fit(tmp_path, looks)))
    thread.start()
    thread.join(120)
    assert found[0].epoch == [0, 1] and set(looks.handlers) == {mine}


@pytest.mark.unit
def test_who_ignores_it_goes_on_ignoring_it(tmp_path, caught):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert fit(tmp_path, Signals("batch")).epoch == [0, 1]
