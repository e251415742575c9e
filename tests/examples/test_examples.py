"""The examples, run as their docstrings say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LAUNCH = ["-m", "tfdist", "launch", "--workers=2"]


def run(*arguments: str, **environment: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracies(output: str) -> list[float]:
    return [float(text) for text in re.findall(r"replicas: 2, accuracy: ([0-9.]+)", output)]


@pytest.mark.unit
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100


@pytest.mark.unit
def test_single_host():
    (accuracy,) = accuracies(run("examples/single_host.py", "--epochs=3"))
    assert accuracy > 0.85


@pytest.mark.unit
def test_pipeline():
    """256 x 64 + 64 and 64 x 10 + 10 float32 on the second device, and three times that for Adam and gradients."""
    output = run("examples/pipeline.py", "--epochs=3")
    assert re.search(r"1 +[CG]PU:1 +dense \.\.\. dense_1 +68,392 +205,176", output), output
    (accuracy,) = re.findall(r"stages: 2, accuracy: ([0-9.]+)", output)
    assert float(accuracy) > 0.85


@pytest.mark.cluster
def test_hybrid_parallel():
    """Data parallelism and attention heads on four devices, with its table first."""
    output = run("examples/hybrid_parallel.py", "--epochs=4", "--zero_stage=1")
    assert "each of 4 devices" in output
    (accuracy,) = re.findall(r"devices: 4, accuracy: ([0-9.]+)", output)
    assert float(accuracy) > 0.7


@pytest.mark.cluster
def test_char_transformer():
    """Half the text's characters would be blanks and e's for one that has learned nothing else."""
    output = run("examples/char_transformer.py", "--steps=80")
    (accuracy,) = re.findall(r"devices: 4, accuracy: ([0-9.]+)", output)
    assert float(accuracy) > 0.25


@pytest.mark.nightly
@pytest.mark.cluster
def test_fsdp():
    ((share, accuracy),) = re.findall(r"share: ([0-9.]+), accuracy: ([0-9.]+)", run("examples/fsdp.py", "--steps=80"))
    assert float(share) == 0.25
    assert float(accuracy) > 0.25


@pytest.mark.cluster
@pytest.mark.parametrize("script", ["custom_training_loop.py", "custom_train_step.py"])
def test_example_on_two_workers(script):
    first, second = accuracies(run(*LAUNCH, f"examples/{script}", "--epochs=3"))
    assert first == second
    assert first > 0.85


@pytest.mark.cluster
def test_parameter_server_launched_and_alone():
    """1,437 digits in batches of 32 are 45 steps an epoch."""
    launched = run("-m", "tfdist", "launch", "--workers=4", "--ps=1", "examples/parameter_server.py")
    workers, steps, accuracy = re.findall(r"workers: (\d), steps: (\d+), accuracy: ([0-9.]+)", launched)[0]
    assert (workers, steps) == ("4", "225")
    assert float(accuracy) > 0.9


@pytest.mark.nightly
@pytest.mark.cluster
def test_asynchronous_and_incremental_sgd():
    launched = run("-m", "tfdist", "launch", "--workers=3", "--ps=1", "examples/async_sgd.py", "--update=bounded")
    steps, accuracy = re.findall(r"update: bounded, workers: 3, steps: (\d+), .*accuracy: ([0-9.]+)", launched)[0]
    assert (int(steps), float(accuracy) > 0.8) == (225, True)
    alone = run("examples/incremental_sgd.py")
    steps, accuracy = re.findall(r"workers: 2, steps: (\d+), best accuracy: ([0-9.]+)", alone)[0]
    assert (int(steps), float(accuracy) > 0.95) == (900, True)


@pytest.mark.nightly
@pytest.mark.cluster
def test_diloco_and_what_it_is_compared_with():
    """The same 60 steps of both; a guess at random among 128 characters has a loss of 4.85."""
    found = {}
    for every in (20, 0):
        output = run(*LAUNCH, "examples/diloco.py", "--steps=60", f"--sync_every_steps={every}")
        losses = re.findall(rf"workers: 2, steps: 60, exchange every {every or 1} steps, .* loss: ([0-9.]+)", output)
        assert len(losses) == 2
        assert losses[0] == losses[1]
        found[every] = float(losses[0])
    assert found[20] != found[0]
    assert max(found.values()) < 4


@pytest.mark.nightly
@pytest.mark.cluster
def test_two_towers_find_what_users_take_among_items_in_shards():
    """2,000 users' 38 items in batches of 256 are 296 steps; ten of 462 items drawn at random are 0.022 of them."""
    output = run("-m", "tfdist", "launch", "--workers=2", "--ps=2", "examples/two_tower.py", "--epochs=1")
    ((steps, recall, chance),) = re.findall(r"steps: (\d+), recall@10: ([0-9.]+), by chance: ([0-9.]+)", output)
    assert (steps, chance) == ("296", "0.022")
    assert float(recall) > 0.15


@pytest.mark.cluster
def test_the_documented_parameter_server_script(tmp_path):
    text = (ROOT / "docs" / "parameter_server.md").read_text(encoding="utf-8")
    script = tmp_path / "train.py"
    script.write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    assert "Epoch 5/5" in run("-m", "tfdist", "launch", "--workers=2", "--ps=1", str(script))


@pytest.fixture
def noise_as_mnist(tmp_path):
    """A folder with a file of noise in the shape of MNIST."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (96, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, 96, dtype=np.uint8)
    data = {"x_train": images, "y_train": labels, "x_test": images[:32], "y_test": labels[:32]}
    np.savez(tmp_path / "mnist.npz", **data)
    return tmp_path


@pytest.mark.cluster
def test_accumulation_takes_fewer_steps_alone_and_on_two_workers():
    """1,437 digits in batches of 256 are 6 optimizer steps an epoch, the last of them smaller."""
    options = ["examples/accumulate_mnist.py", "--data=digits"]
    alone, workers = run(*options), run(*LAUNCH, *options)
    assert "256 rows an optimizer step = 8 micro-batches x 32 rows = 8 x 1 replica x 32 rows" in alone
    assert workers.count("256 rows an optimizer step = 8 micro-batches x 32 rows = 8 x 2 replicas x 16 rows") == 1
    assert re.findall(r"optimizer steps: (\d+)", alone + workers) == ["30"] * 3
    first, second = accuracies(workers)
    assert first == second
    assert first > 0.85
    assert f"accuracy: {first:.4f}" in alone


@pytest.mark.unit
def test_accumulation_on_mnist_from_a_local_file(noise_as_mnist):
    """96 rows are one optimizer step of 64 rows and one of 32."""
    options = ["--global_batch=64", "--gradient_accumulation_steps=4", "--epochs=1"]
    output = run("examples/accumulate_mnist.py", *options, TFDIST_DATA_DIR=str(noise_as_mnist))
    assert "64 rows an optimizer step = 4 micro-batches x 16 rows" in output
    assert "optimizer steps: 2" in output


@pytest.mark.cluster
def test_tfrecords_are_written_by_the_chief_alone_and_only_once(tmp_path):
    """What two workers learn from PNG images in files is what one learns."""
    options = ["examples/tfrecords_mnist.py", "--data=digits", f"--folder={tmp_path}", "--epochs=3"]
    workers, alone = run(*LAUNCH, *options, f"--backup={tmp_path / 'backup'}"), run(*options)
    assert re.findall(r"wrote (\d+) images", workers) == ["1437", "360"]
    assert "wrote" not in alone
    first, second = accuracies(workers)
    assert first == second
    assert first > 0.85
    assert f"accuracy: {first:.4f}" in alone
    assert sorted(path.name for path in tmp_path.glob("*index")) == [
        "digits-test.tfdist-index",
        "digits-train.tfdist-index",
    ]


@pytest.mark.unit
def test_tfrecords_of_mnist_from_a_local_file(noise_as_mnist, tmp_path):
    output = run(
        *("examples/tfrecords_mnist.py", "--data=mnist", f"--folder={tmp_path}", "--epochs=1"),
        TFDIST_DATA_DIR=str(noise_as_mnist),
    )
    assert re.findall(r"wrote (\d+) images", output) == ["96", "32"]


@pytest.mark.nightly
@pytest.mark.cluster
def test_text_in_tfrecords_is_padded_less_and_learned_the_same_on_two_workers(tmp_path):
    options = ["examples/tfrecords_text.py", f"--folder={tmp_path}", "--epochs=2"]
    workers, alone = run(*LAUNCH, *options), run(*options)
    ((grouped, plain),) = re.findall(r"padding: (\d+)% of each batch, (\d+)% without", workers)
    assert int(grouped) < 6
    assert int(plain) > 35
    first, second, one = map(float, re.findall(r"replicas: [12], perplexity: ([0-9.]+)", workers + alone))
    assert first == second == pytest.approx(one, rel=1e-3)
    assert first < 8, "of 256 bytes, of which made-up lines have 21"


@pytest.mark.unit
def test_text_from_a_local_file(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 40)
    output = run("examples/tfrecords_text.py", f"--folder={tmp_path}", "--epochs=1", f"--text={text}")
    assert "replicas: 1, perplexity: " in output
    assert (tmp_path / "text-80.tfdist-index").is_file()


@pytest.mark.cluster
def test_multi_worker_on_mnist_from_a_local_file(noise_as_mnist, tmp_path):
    """Its file can be read, trained on, and the model saved once."""
    output = run(
        *LAUNCH,
        "examples/multi_worker.py",
        "--data=mnist",
        "--epochs=1",
        f"--save={tmp_path / 'model.keras'}",
        TFDIST_DATA_DIR=str(noise_as_mnist),
    )
    first, second = accuracies(output)
    assert first == second
    assert (tmp_path / "model.keras").is_file()


@pytest.mark.cluster
def test_the_demonstration_keeps_its_promises(tmp_path):
    lines = run("examples/demo.py", f"--output={tmp_path}").splitlines()[-5:]
    said = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines)
    assert float(said["held-out accuracy"].split()[0]) >= 0.95
    assert said["of the reloaded model"] == said["held-out accuracy"].split()[0]
    to_one_device, between = re.findall(r"[0-9.]+e[-+][0-9]+", said["largest weight difference"])
    assert float(to_one_device) <= 1e-10
    assert float(between) == 0.0
    assert "with 1 worker" in said["examples/s"]
    assert (tmp_path / "model.keras").is_file()
