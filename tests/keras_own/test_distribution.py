"""Keras' own tests of distribution, with tfdist.MirroredStrategy in the place of TensorFlow's."""

from __future__ import annotations

import pytest

from tests.keras_own.keras_tests import run_keras_tests

pytestmark = pytest.mark.unit

FILES = ("backend/tensorflow/distribute_test.py", "backend/tensorflow/optimizer_distribute_test.py")


def test_keras_own_distribution_tests_pass(tmp_path):
    run_keras_tests(FILES, mode="mirrored", scratch=tmp_path).check(at_least=15)
