"""What is patched in Keras is inert for models that are not under a tfdist strategy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.cluster_runner import run_python
from tests.keras_own.keras_tests import run_keras_tests

pytestmark = pytest.mark.unit

PROGRAM = Path(__file__).with_name("stock_program.py")
# What the shims touch, and what goes through it. Those of callbacks/ that write files or assign weights.
FILES = (
    "optimizers",
    "callbacks/backup_and_restore_test.py",
    "callbacks/callback_test.py",
    "callbacks/csv_logger_test.py",
    "callbacks/model_checkpoint_test.py",
    "callbacks/swap_ema_weights_test.py",
    "callbacks/tensorboard_test.py",
    "layers/layer_test.py",
    "layers/normalization/batch_normalization_test.py",
    "losses/loss_test.py",
    "metrics/metric_test.py",
    "metrics/reduction_metrics_test.py",
    "backend/common/variables_test.py",
    "random/seed_generator_test.py",
    "saving/saving_lib_test.py",
    "trainers/compile_utils_test.py",
    "trainers/trainer_test.py",
)
# These fail without tfdist as well (TFDIST_TEST_AS=absent).
FAIL_ANYWAY = (
    "torch",  # PyTorch is not installed
    "jax",  # nor is JAX
    "VariableOpsDTypeTest",  # which asks JAX for the dtypes to expect
    "sparse_scipy",  # nor is SciPy
    "grain",  # nor is grain
    "test_legacy_load_skips_missing_nested_containers",  # its data is not in the package
)
# These take more time than they tell.
SLOW = (
    "jit",  # XLA, which tfdist does not touch
    "efficientnet",
    "unrolled_steps",
    "steps_count",
    "eager",  # which has the graph's code paths and fewer
    "multithreading",
    "_cw",
    "(TensorBoard and (histograms or images or projector))",
    "(test_compile_preserved and not subclassed)",
)


@pytest.mark.nightly
@pytest.mark.timeout(360)  # more than what the run itself is given
def test_keras_own_tests_pass_beside_tfdist(tmp_path):
    without = [*FAIL_ANYWAY, *SLOW]
    run_keras_tests(FILES, mode="installed", scratch=tmp_path, without=without).check(at_least=600)


def results_of(mode: str, folder: Path) -> dict[str, np.ndarray]:
    run_python([str(PROGRAM), mode, str(folder / f"{mode}.npz")], workers=0, logs=folder / mode)
    return dict(np.load(folder / f"{mode}.npz"))


def test_models_of_others_train_to_the_same_bits(tmp_path):
    without, beside = results_of("without", tmp_path), results_of("beside", tmp_path)
    assert without.keys() == beside.keys()
    different = [name for name in without if without[name].tobytes() != beside[name].tobytes()]
    assert different == []
