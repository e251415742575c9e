"""Small scripts, run by real processes: each with one planted mistake that must be named, or with none."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from tfdist.verify.options import VerifyOptions
from tfdist.verify.procedure import verify
from tfdist.verify.progress import Progress
from tfdist.verify.report import report
from tfdist.verify.result import Result, Verdict

pytestmark = pytest.mark.cluster
SCRIPTS = Path(__file__).parent / "scripts"
STEPS = 6


def run(script: str, *arguments: str, **options) -> Result:
    """Two workers against one device, for six steps."""
    asked = VerifyOptions(str(SCRIPTS / f"{script}.py"), arguments, steps=STEPS, timeout_seconds=200, **options)
    return verify(asked, Progress(io.StringIO()))


@dataclass(frozen=True)
class Planted:
    """A mistake, and what must be said of it: its cause, the first step, what differs most there, and where it is."""

    cause: str
    name: str
    where: str
    step: int = 1
    confidence: str = "certain"
    accumulate: int = 1
    float64: bool = False


KERNEL, BIAS, LAST_BIAS = "sequential/dense/kernel", "sequential/dense/bias", "sequential/dense_1/bias"
MISTAKES = {
    "bad_batch_normalization": Planted("unsynchronized_batch_normalization", KERNEL, "sequential/norm"),
    "bad_scaled_by_replicas": Planted("scaled_by_replicas", "classifier/dense_1/kernel", "num_replicas_in_sync at"),
    "bad_sum_loss": Planted("loss_is_a_sum", BIAS, "loss squared_error at"),
    "bad_clipping": Planted("clipped_before_reduce", "classifier/dense/bias", "tf.clip_by_global_norm at"),
    "bad_sharding": Planted("sharded_by_hand", LAST_BIAS, "Dataset.shard at"),
    "bad_unseeded_shuffle": Planted("not_reproducible", "", "np.random.default_rng() at"),
    "bad_data_before_strategy": Planted("data_differs_between_workers", BIAS, ""),
    "bad_contrastive_loss": Planted("loss_compares_rows", BIAS, "loss in_batch_negatives at"),
    "bad_layer": Planted("layer_mixes_rows", "dense/bias", "centre"),
    "bad_noise": Planted("random_numbers_in_step", "noisy/dense/bias", "tf.random.normal at", confidence="likely"),
    "bad_learning_rate": Planted("learning_rate", "optimizer.learning_rate", "num_replicas_in_sync at", step=5),
    "bad_metric": Planted("metric_is_no_sum", "largest_logit", "largest_logit", confidence="likely", float64=True),
    "clean_convolution": Planted(
        "batch_normalization_of_micro_batches", "sequential/conv2d/bias", "batch_normalization", accumulate=2
    ),
}


@pytest.mark.parametrize("script", MISTAKES)
def test_a_planted_mistake_is_named(script):
    planted = MISTAKES[script]
    result = run(script, accumulate=planted.accumulate, float64=planted.float64)
    text = report(result)
    assert result.verdict is Verdict.DIFFERENT, text
    assert result.finding.cause == planted.cause, text
    assert result.finding.confidence == planted.confidence, text
    assert result.deciding.first[0].step == planted.step, text
    assert f"DIFFERENT from step {planted.step} on" in text
    if planted.name:
        assert result.deciding.first[0].name == planted.name, text
    assert planted.where in " ".join(result.finding.where), text
    if " at" in planted.where:
        assert names_the_line(result.finding.where, script), text


def names_the_line(where: tuple[str, ...], script: str) -> bool:
    """Whether the line that is named has, or begins, what is said of it."""
    lines = (SCRIPTS / f"{script}.py").read_text().splitlines()
    for place in where:
        what, _, line = place.rpartition(f" at tests/verify/scripts/{script}.py:")
        name = what.split()[-1].rpartition(".")[2].removesuffix("()") if what else ""
        if name and name in lines[int(line) - 1]:
            return True
    return False


@pytest.mark.parametrize("script", ["clean_mlp", "clean_train_on_batch", "clean_accumulation", "clean_tfrecords"])
def test_a_script_without_mistakes_is_equal(script):
    check_equal(run(script))


def test_random_layers_are_switched_off_and_file_callbacks_left_out():
    result = run("clean_functional")
    check_equal(result)
    assert result.inert == ("drop",)
    assert "val_accuracy" in result.comparison.logs
    assert not Path("never.keras").exists()


def test_arguments_are_passed_on():
    result = run("clean_embedding", "--words", "9")
    check_equal(result)
    assert result.comparison.variables == 6


def test_accumulation_of_sliced_batches_is_equal():
    """Batches of 16, 16, 16, 15 rows in three slices each; and the loss, which is no metric, is left out."""
    result = run("clean_train_step", accumulate=3)
    check_equal(result)
    assert result.comparison.logs == {"optimizer.learning_rate"}
    assert "loss, mean_logit: not compared" in report(result)


def test_differences_that_float64_takes_away_are_rounding():
    """Adam makes a step of full size from a bias' gradient that is zero but for rounding."""
    result = run("clean_convolution")
    check_equal(result)
    assert result.comparison.first[0].name == "sequential/conv2d/bias"
    assert result.float64.is_equal
    assert "amplified rounding" in report(result)


def check_equal(result: Result) -> None:
    text = report(result)
    assert result.verdict is Verdict.EQUAL, text
    assert text.startswith("EQUAL: 2 workers")
    assert 0 < result.deciding.steps <= STEPS
    assert result.deciding.worst_variable.excess < 0.2, text
