"""Each record once an epoch, by one worker, in equally many steps: a random sample of all small cases, from real files.

The sample is the same in every run. Some cases go all the way through tf.data; many more only through the reader that
the tf.data graph calls.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.helpers.tfrecords import ID, flat, ids_of, together, write_shards
from tfdist.data import ShardOptions, read_tfrecords
from tfdist.data.features import features_to_json
from tfdist.data.reading.read_options import ReadOptions
from tfdist.data.reading.record_reader import RecordReader

pytestmark = pytest.mark.unit

RECORDS = (1, 2, 5, 16, 63, 64, 65, 131, 200)
SHUFFLES = (False, "local", "global")
KINDS = ("even", "random", "lopsided", "single")
THROUGH_TF_DATA, THROUGH_READER = 20, 600


@dataclasses.dataclass(frozen=True)
class Case:
    files: int
    records: int
    kind: str
    indexed: bool
    workers: int
    batch_size: int
    options: tuple[tuple[str, Any], ...]

    @property
    def steps(self) -> int:
        drops = dict(self.options)["drop_remainder"]
        return self.records // self.batch_size if drops else -(-self.records // self.batch_size)

    def counts(self) -> list[int]:
        """Records of each file; some have none."""
        if self.kind == "even":
            return [self.records * (i + 1) // self.files - self.records * i // self.files for i in range(self.files)]
        if self.kind == "random":
            chance = random.Random(self.records * 31 + self.files)
            cuts = sorted(chance.randint(0, self.records) for _ in range(self.files - 1))
            return [b - a for a, b in itertools.pairwise([0, *cuts, self.records])]
        full = 0 if self.kind == "lopsided" else self.files - 1
        return [self.records if i == full else 0 for i in range(self.files)]


def cases(seed: int) -> Iterator[Case]:
    """An endless random stream; cases that can't be read, as their errors say, are left out."""
    chance = random.Random(seed)
    while True:
        workers = chance.randint(1, 5)
        shuffle = chance.choice(SHUFFLES)
        options = {
            "shuffle": shuffle,
            "sharding": chance.choice(("auto", "batches") if shuffle == "global" else ("auto", "records", "batches")),
            "drop_remainder": chance.random() < 0.3,
            "group_by_length": chance.choice((0, 0, 0, 3)),
            "seed": chance.randint(0, 3),
            "shuffle_buffer": chance.choice((None, 1, 20)),
        }
        case = Case(
            files=chance.randint(1, 17),
            records=chance.choice(RECORDS),
            kind=chance.choice(KINDS),
            indexed=chance.random() < 0.5,
            workers=workers,
            batch_size=chance.choice((workers, workers + 1, 8, 13, 64)),
            options=tuple(options.items()),
        )
        if case.steps:
            yield case


@pytest.fixture(scope="module")
def pattern_of(tmp_path_factory: pytest.TempPathFactory):
    """Files of a case, written once for all cases that need the same."""
    written: dict[Any, str] = {}

    def write(case: Case) -> str:
        key = tuple(case.counts()), case.indexed
        if key not in written:
            folder: Path = tmp_path_factory.mktemp("files")
            written[key] = write_shards(folder, key[0], indexed=case.indexed)
        return written[key]

    return write


def check_epoch(case: Case, by_worker: list[list[list[int]]]) -> None:
    """Ids of one epoch, by worker and step."""
    assert {len(steps) for steps in by_worker} == {case.steps}, case
    steps = together(by_worker)
    read = flat(steps)
    drops = dict(case.options)["drop_remainder"]
    expected = case.steps * case.batch_size if drops else case.records
    assert len(read) == expected, case
    assert set(read) <= set(range(case.records)), case
    assert len(set(read)) == expected, case
    if drops:
        sizes = [{len(batch) for batch in worker} for worker in by_worker]
        assert all(len(one) == 1 for one in sizes), case
        assert {len(step) for step in steps} == {case.batch_size}, case


def test_through_tf_data(pattern_of):
    for case in itertools.islice(cases(0), THROUGH_TF_DATA):
        pattern = pattern_of(case)
        datasets = [
            read_tfrecords(
                pattern, ID, batch_size=case.batch_size, shard=ShardOptions(case.workers, i), **dict(case.options)
            )
            for i in range(case.workers)
        ]
        assert {len(dataset) for dataset in datasets} == {case.steps}, case
        epochs = 2 if case.workers < 3 else 1
        for _ in range(epochs):
            check_epoch(case, [ids_of(dataset) for dataset in datasets])


def test_through_the_reader(pattern_of):
    # Looking for each file is most of the time.
    for case in itertools.islice(cases(1), THROUGH_READER):
        options = ReadOptions((pattern_of(case),), case.batch_size, features=features_to_json(ID), **dict(case.options))
        readers = [
            RecordReader(dataclasses.replace(options, shard=ShardOptions(case.workers, i))) for i in range(case.workers)
        ]
        for epoch in (0, 1):
            check_epoch(case, [ids_by_step(reader, epoch) for reader in readers])


def ids_by_step(reader: RecordReader, epoch: int) -> list[list[int]]:
    steps = []
    for first in range(0, reader.share.num_steps, reader.chunk_steps):
        records, splits = reader.records(epoch, first, careful=False)
        ids = [tf.train.Example.FromString(one).features.feature["id"].int64_list.value[0] for one in records]
        steps += [ids[a:b] for a, b in itertools.pairwise(splits.tolist())]
    return steps


def test_the_sample_has_cases_of_every_kind():
    sample = list(itertools.islice(cases(0), THROUGH_TF_DATA))
    for name in ("files", "workers", "kind", "indexed"):
        assert (
            len({getattr(case, name) for case in sample}) >= {"files": 8, "workers": 5, "kind": 4, "indexed": 2}[name]
        )
    assert {(dict(case.options)["shuffle"], case.indexed) for case in sample} == set(
        itertools.product(SHUFFLES, (False, True))
    )
    assert any(0 in case.counts() for case in sample)
