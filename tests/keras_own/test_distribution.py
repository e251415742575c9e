"""Keras' own tests of distribution, with tfdist.MirroredStrategy in the place of TensorFlow's."""

from __future__ import annotations

import pytest

from tests.keras_own.keras_tests import run_keras_tests

pytestmark = pytest.mark.unit

# It looks into private variables: Keras' accumulators, which tfdist does without, and `_iterations`, which counts
# optimizer steps. What it says of weights and `iterations` is in tests/gradients/test_accumulation.py.
REPLACED = ("gradient_accumulation",)
FILES = ("backend/tensorflow/distribute_test.py", "backend/tensorflow/optimizer_distribute_test.py")


def test_keras_own_distribution_tests_pass(tmp_path):
    run_keras_tests(FILES, mode="mirrored", scratch=tmp_path, without=REPLACED).check(at_least=15)
