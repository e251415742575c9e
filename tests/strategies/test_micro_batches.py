"""Batches that are cut into micro-batches take less memory and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import tfdist
from tests.helpers.cluster_runner import run_python
from tfdist.cluster.micro_batches import ENVIRONMENT, micro_batches
from tfdist.errors import ClusterError
from tfdist.gradients import AccumulationOptions


@pytest.mark.cluster
@pytest.mark.parametrize("setup", ["one_device_strategy", "mirrored2"])
def test_equal_to_whole_batches_on_one_device(setup: str, tmp_path: Path) -> None:
    run_python(["-m", "tests.strategies.programs.micro_batches", setup], workers=0, logs=tmp_path)


@pytest.mark.unit
@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "", "²"])
def test_a_wrong_number_from_the_launcher(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, text)
    with pytest.raises(ClusterError, match="Unset it"):
        micro_batches()


@pytest.mark.unit
def test_the_launchers_number_multiplies_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "3")
    strategy = tfdist.MultiWorkerMirroredStrategy(gradient_accumulation_steps=AccumulationOptions(4, splits=2))
    assert (strategy.options_of(None).steps, strategy.options_of(None).splits) == (4, 6)
    strategy.gradient_accumulation_steps = 5
    assert (strategy.options_of(None).steps, strategy.options_of(None).splits) == (5, 3)
    with pytest.raises(ValueError, match="without --elastic_accumulation under LocalSGDStrategy"):
        tfdist.LocalSGDStrategy(sync_every_steps=4)


@pytest.mark.unit
@pytest.mark.parametrize(("splits", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_wrong_splits(splits: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="Received: splits="):
        AccumulationOptions(splits=splits)  # type: ignore[arg-type]


@pytest.mark.unit
def test_without_a_strategy_nothing_cuts() -> None:
    import keras

    with pytest.raises(ValueError, match="Received: splits=2"):
        tfdist.gradients.accumulate(keras.optimizers.SGD(), AccumulationOptions(splits=2))
