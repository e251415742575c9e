"""Which records each worker reads, over all small cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfdist.data.sharding import ShardOptions, share_of

pytestmark = pytest.mark.unit

RECORDS = (0, 1, 2, 7, 16, 63, 64, 65, 200)


def split(records: int, files: int, kind: str) -> list[int]:
    """First records of `files` files: of equal size, of random sizes, or all in one."""
    if kind == "even":
        counts = [records * (i + 1) // files - records * i // files for i in range(files)]
    elif kind == "lopsided":
        counts = [0] * (files - 1) + [records]
    else:
        cuts = np.sort(np.random.default_rng(files).integers(0, records + 1, files - 1))
        counts = np.diff([0, *cuts, records]).tolist()
    return [0, *np.cumsum(counts).tolist()]


CASES = [
    (files, workers, records, batch, kind)
    for files, workers, records, kind in itertools.product(
        range(1, 18), range(1, 6), RECORDS, ("even", "random", "lopsided")
    )
    for batch in (workers, workers + 1, 8, 13, 64)
]


@pytest.mark.parametrize("rule", ["auto", "records", "batches"])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_each_record_is_read_once_by_one_worker_in_equally_many_steps(rule: str, drop_remainder: bool):
    seen_rules = set()
    for files, workers, records, batch, kind in CASES:
        first_ids = split(records, files, kind)
        shares = [
            share_of(first_ids, ShardOptions(workers, w), batch, rule=rule, drop_remainder=drop_remainder)
            for w in range(workers)
        ]
        seen_rules |= {share.rule for share in shares}
        steps = {share.num_steps for share in shares}
        assert steps == {records // batch if drop_remainder else -(-records // batch)}
        read = []
        for step in range(steps.pop()):
            rows = 0
            for share in shares:
                own = np.concatenate([np.arange(a, b) for a, b in share.ranges] or [np.zeros(0, int)])
                begin, end = share.bounds(step)
                assert 0 <= begin <= end <= len(own)
                assert not drop_remainder or end - begin == share.rows
                read.append(own[begin:end])
                rows += end - begin
            assert rows <= batch or share.rule == "files"
        read = np.concatenate(read or [np.zeros(0, int)])
        expected = records // batch * batch if drop_remainder else records
        assert len(read) == len(set(read.tolist())) == expected, (files, workers, records, batch, kind)
    assert (
        seen_rules
        == {"auto": {"all", "files", "records"}, "records": {"all", "records"}, "batches": {"all", "batches"}}[rule]
    )
