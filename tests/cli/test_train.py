"""`tfdist train`, run as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent.parent


def train(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfdist", "train", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def losses(output: str) -> list[str]:
    """The validation loss of each epoch."""
    return re.findall(r"val_loss: ([0-9.]+)", output)


@pytest.mark.cluster
def test_one_device_two_replicas_and_two_workers_train_alike(tmp_path):
    """Each shipped configuration; they differ in the strategy only, and in micro-batches to an optimizer step."""
    saved = tmp_path / "model.keras"
    workers = ["strategy.name=MultiWorkerMirroredStrategy", "launch.workers=2"]
    runs = {
        (name, *more): train(f"configs/{name}.yaml", "epochs=2", *more)
        for name, *more in [
            ("quickstart",),
            ("mirrored",),
            ("multi_worker_mirrored", f"save={saved}"),
            ("accumulate",),
            ("accumulate", *workers, "strategy.options.gradient_accumulation_steps=4"),
        ]
    }
    for run in runs.values():
        assert run.returncode == 0, run.stdout + run.stderr
    expected = losses(runs["quickstart",].stdout)
    assert len(expected) == 2
    # The launcher shows the chief's lines; the other worker is silent.
    assert {name: losses(run.stdout) for name, run in runs.items()} == dict.fromkeys(runs, expected)
    assert runs["multi_worker_mirrored", f"save={saved}"].stdout.count(f"saved model: {saved}") == 1
    assert keras.models.load_model(saved).count_params() > 0


@pytest.mark.cluster
def test_two_workers_average_by_an_outer_optimizer():
    run = train("configs/local_sgd.yaml", "epochs=2")
    assert run.returncode == 0, run.stdout + run.stderr
    before, after = map(float, losses(run.stdout))
    assert after < before


def test_an_outer_optimizer_that_does_not_exist():
    run = train("configs/local_sgd.yaml", "launch.workers=1", "strategy.options.outer_optimizer.name=sdg")
    assert run.returncode != 0
    assert "Received: strategy.options.outer_optimizer='sdg'. Did you mean 'SGD'?" in run.stdout + run.stderr


@pytest.mark.cluster
def test_tfrecords_are_written_once_and_read_by_two_workers(tmp_path):
    folders = [f"{part}.options.folder={tmp_path}" for part in ("data", "validation_data")]
    done = train("configs/tfrecords.yaml", "epochs=2", *folders)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("wrote 1437 images") == 1
    assert len(losses(done.stdout)) == 2
    assert float(losses(done.stdout)[-1]) < 1.5


@pytest.mark.cluster
def test_embeddings_in_shards_as_the_configuration_describes_them():
    """Of 256 items of a batch, 10 are 0.04."""
    done = train("configs/two_tower.yaml", "epochs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = re.findall(r"val_sparse_top_k_categorical_accuracy: ([0-9.]+)", done.stdout)
    assert float(found) > 0.15


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.parametrize("name", ["hybrid_parallel", "fsdp"])
def test_models_split_over_a_mesh_as_configurations_describe_them(name):
    done = train(f"configs/{name}.yaml", "epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (float(number) for number in re.findall(r"\bloss: ([0-9.]+)$", done.stdout, re.MULTILINE)[-2:])
    assert second < first


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.parametrize(("name", "largest"), [("async_sgd", 8), ("incremental_sgd", 0)])
def test_policies_of_updates_as_configurations_describe_them(name, largest):
    done = train(f"configs/{name}.yaml", "epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"max_staleness: ([0-9.e+]+).*val_loss", done.stdout)
    assert len(found) == 2
    assert float(found[-1]) <= largest


@pytest.mark.nightly
@pytest.mark.cluster
def test_stages_train_as_one_device_does():
    """Also two pipelines, on devices that the command line names."""
    grid = ["strategy.options.devices=[[CPU:0,CPU:1],[CPU:2,CPU:3]]", "logical_cpus=4"]
    runs = [
        train(f"configs/{name}.yaml", "epochs=1", *more)
        for name, *more in [("quickstart",), ("pipeline",), ("pipeline", *grid)]
    ]
    for run in runs:
        assert run.returncode == 0, run.stdout + run.stderr
    expected, *found = [losses(run.stdout) for run in runs]
    assert len(expected) == 1 and found == [expected, expected]


@pytest.mark.unit
@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "A configuration file must be given"),
        (["--epochs=3"], 2, "Unknown option --epochs=3"),
        (["epochs=3"], 2, "The file comes before key=value"),
        (["configs/quickstat.yaml"], 1, "Did you mean configs/quickstart.yaml?"),
        (["configs/quickstart.yaml", "epoch=3"], 1, "Did you mean 'epochs'?"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_line(arguments, code, message):
    done = train(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.unit
def test_wrong_options_are_refused_before_training():
    done = train("configs/quickstart.yaml", "optimizer.options.learning_rat=1.0")
    assert done.returncode == 1
    assert "Did you mean 'learning_rate'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.unit
def test_help_says_how_it_is_used():
    done = train("--help")
    assert done.returncode == 0
    assert "tfdist train configs/NAME.yaml [key=value ...]" in done.stdout
