"""What `fit` and `evaluate` say about files that can't be read."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
import tensorflow as tf

import tfdist
from tfdist.errors import CorruptRecordError

pytestmark = pytest.mark.unit

FEATURES = {"x": tfdist.data.Tensor([3])}
RECORDS, BROKEN = 20, 13


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    """Two files, of which the second has a flipped bit in its fourth record."""
    arrays = {"x": [[float(i)] * 3 for i in range(RECORDS)]}
    tfdist.data.write_tfrecords(
        ({"x": row} for row in arrays["x"]), str(tmp_path / "x-*.tfrecord"), FEATURES, num_shards=2
    )
    path = sorted(tmp_path.glob("*.tfrecord"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 10 + 20] ^= 1
    path.write_bytes(data)
    return str(tmp_path / "x-*.tfrecord")


@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_error_names_file_and_record(pattern: str, method: str, shuffle: bool) -> None:
    with tfdist.OneDeviceStrategy("CPU:0").scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
    data = tfdist.data.read_tfrecords(pattern, FEATURES, batch_size=4, shuffle=shuffle)
    data = data.map(lambda features: (features["x"], features["x"]))
    with pytest.raises(CorruptRecordError, match=r"x-00001-of-00002\.tfrecord: record 3 at byte \d+: its .* checksum"):
        getattr(model, method)(data, verbose=0)
    # The next error is not taken for this one.
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine"):
        model.fit(
            data.map(lambda x, y: (tf.debugging.assert_equal(1, 2, message="mine"), (x, y))[1]).take(1), verbose=0
        )
