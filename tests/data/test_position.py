"""Positions: going on in the middle of an epoch gives exactly what an uninterrupted run would have given."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import tfdist
from tests.helpers.nightly import nightly
from tests.helpers.tfrecords import ID, even, flat, ids_of, write_shards
from tfdist.data import ShardOptions, read_tfrecords

ROOT = Path(__file__).parents[2]
SHUFFLES = (False, "local", "global")
RECORDS, BATCH = 100, 7
STEPS = 15
LOOP_RECORDS, LOOP_STEPS = 40, 6


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("position"), even(RECORDS, 3))


def reading(pattern: str, **options) -> tf.data.Dataset:
    return read_tfrecords(pattern, ID, **{"batch_size": BATCH, "seed": 1, **options})


@pytest.fixture(params=SHUFFLES, ids=str)
def shuffle(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(pattern):
    """Ids by epoch and step, for each shuffle."""
    datasets = {shuffle: reading(pattern, shuffle=shuffle) for shuffle in SHUFFLES}
    return {shuffle: [ids_of(dataset) for _ in range(4)] for shuffle, dataset in datasets.items()}


@pytest.mark.unit
@pytest.mark.parametrize("epoch, step", [(0, 0), (0, 1), (1, 8), (2, STEPS - 1), (1, STEPS)])
def test_after_a_move_the_rest_of_the_epoch_comes_then_whole_ones(pattern, uninterrupted, shuffle, epoch, step):
    """15 steps are read in one chunk, so a start in the middle is one in the middle of a chunk."""
    dataset = reading(pattern, shuffle=shuffle)
    tfdist.data.position(dataset).move_to(epoch, step)
    expected = uninterrupted[shuffle]
    if step < STEPS:
        assert ids_of(dataset) == expected[epoch][step:]
    assert [ids_of(dataset) for _ in range(3 - epoch)] == expected[epoch + 1 :]


@pytest.mark.unit
def test_in_steps_larger_than_a_chunk(tmp_path, shuffle):
    """1,200 rows a batch are more than a chunk has."""
    pattern = write_shards(tmp_path, [2500, 2500])
    whole = ids_of(reading(pattern, batch_size=1200, shuffle=shuffle))
    dataset = reading(pattern, batch_size=1200, shuffle=shuffle)
    tfdist.data.position(dataset).move_to(0, 3)
    assert ids_of(dataset) == whole[3:]


@pytest.mark.unit
def test_on_each_of_several_workers(pattern, shuffle):
    for worker in range(3):
        options = {"shuffle": shuffle, "shard": ShardOptions(3, worker)}
        whole = ids_of(reading(pattern, **options))
        dataset = reading(pattern, **options)
        tfdist.data.position(dataset).move_to(0, 9)
        assert ids_of(dataset) == whole[9:]


@pytest.mark.unit
@pytest.mark.parametrize("begun_at", [0, 4])
def test_passes_that_are_given_up_change_nothing(pattern, uninterrupted, shuffle, begun_at):
    dataset = reading(pattern, shuffle=shuffle)
    position = tfdist.data.position(dataset)
    position.move_to(0, begun_at)
    for length in (1, 3, STEPS - begun_at - 1):
        part = list(itertools.islice(iter(dataset), length))
        assert [batch["id"].numpy().tolist() for batch in part] == uninterrupted[shuffle][0][begun_at:][:length]
        list(dataset.take(1))
    assert (position.epoch, position.step) == (0, begun_at)
    assert ids_of(dataset) == uninterrupted[shuffle][0][begun_at:]
    assert ids_of(dataset) == uninterrupted[shuffle][1]


@pytest.mark.unit
def test_advance_counts_steps_and_epochs_and_leaves_the_pass_under_way(pattern, uninterrupted):
    dataset = reading(pattern, shuffle="global")
    position = tfdist.data.position(dataset)
    seen = []
    for batch in dataset:
        seen.append(batch["id"].numpy().tolist())
        position.advance()
    assert seen == uninterrupted["global"][0]
    assert (position.epoch, position.step, position.steps_per_epoch) == (1, 0, STEPS)
    position.advance(2 * STEPS + 4)
    assert (position.epoch, position.step) == (3, 4)


@pytest.mark.unit
@pytest.mark.parametrize("step", [0, 1, STEPS - 1, STEPS, STEPS + 3])
def test_a_checkpoint_holds_it(pattern, uninterrupted, shuffle, tmp_path, step):
    dataset = reading(pattern, shuffle=shuffle)
    position = tfdist.data.position(dataset)
    batches = itertools.chain.from_iterable(iter(dataset) for _ in range(2))
    for _ in itertools.islice(batches, step):
        position.advance()
    path = tf.train.Checkpoint(position=position).save(str(tmp_path / "checkpoint"))

    other = reading(pattern, shuffle=shuffle)
    restored = tfdist.data.position(other)
    tf.train.Checkpoint(position=restored).restore(path).assert_consumed()
    assert (restored.epoch, restored.step) == divmod(step, STEPS)
    epoch, rest = divmod(step, STEPS)
    assert ids_of(other) == uninterrupted[shuffle][epoch][rest:]
    assert ids_of(other) == uninterrupted[shuffle][epoch + 1]


@pytest.mark.unit
def test_a_pass_of_one_transformation_of_the_data_is_a_pass(pattern, uninterrupted):
    dataset = reading(pattern, shuffle="global")
    mapped = dataset.map(lambda batch: {"id": batch["id"] * 10}).prefetch(2)
    assert tfdist.data.position(mapped) is tfdist.data.position(dataset)
    tfdist.data.position(mapped).move_to(1, 5)
    assert ids_of(mapped) == [[10 * one for one in step] for step in uninterrupted["global"][1][5:]]


@pytest.mark.unit
def test_positions_that_do_not_exist_are_refused(pattern):
    position = tfdist.data.position(reading(pattern))
    for epoch, step in ((-1, 0), (0, -1), (0, STEPS + 1)):
        with pytest.raises(ValueError, match=rf"from 0 to {STEPS}.*Received: epoch={epoch}, step={step}"):
            position.move_to(epoch, step)


@pytest.mark.unit
def test_only_a_data_set_of_one_reader_has_a_position(pattern):
    with pytest.raises(ValueError, match="made from 0"):
        tfdist.data.position(tf.data.Dataset.range(3))
    with pytest.raises(ValueError, match="made from 2"):
        tfdist.data.position(tf.data.Dataset.zip((reading(pattern), reading(pattern))))


@pytest.mark.cluster
@pytest.mark.parametrize("mode", [nightly(""), nightly("local"), "global"])
def test_a_loop_that_is_killed_twice_sees_each_record_once_an_epoch(tmp_path, mode):
    """Killed in epoch 0 and again in epoch 2, 10 steps on; what it did is then what it does in one go."""
    pattern = write_shards(tmp_path, even(LOOP_RECORDS, 3))

    def run(folder: Path, kill_at: int) -> int:
        folder.mkdir(exist_ok=True)
        program = [sys.executable, "-m", "tests.data.programs.own_loop", pattern, str(folder), mode, "3", str(kill_at)]
        done = subprocess.run(program, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
        return done.returncode

    killed = [run(tmp_path / "killed", kill_at) for kill_at in (4, 11, 0)]
    assert killed == [-signal.SIGKILL, -signal.SIGKILL, 0]
    lines = (tmp_path / "killed" / "ids").read_text().splitlines()
    ids = [[int(one) for one in line.split()] for line in lines]
    epochs = [ids[i : i + LOOP_STEPS] for i in range(0, len(ids), LOOP_STEPS)]
    assert len(epochs) == 3
    assert all(sorted(flat(epoch)) == list(range(LOOP_RECORDS)) for epoch in epochs)
    dataset = read_tfrecords(pattern, ID, batch_size=7, shuffle=mode or False, seed=3)
    assert [ids_of(dataset) for _ in range(3)] == epochs
