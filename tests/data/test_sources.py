"""Arrays, data sets, iterables and files become TFRecord files that hold the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfdist.data import Ragged, Sparse, String, Tensor, VariableLength, write_tfrecords
from tfdist.data.features import features_from_json
from tfdist.data.writing.keras_source import columns_of

pytestmark = pytest.mark.unit


@dataclasses.dataclass
class Written:
    features: dict
    columns: dict
    rows_of_shards: list[int]


@pytest.fixture
def written(tmp_path):
    """`written(source, ...)` writes it and reads it again, with TensorFlow alone."""

    def write(source, features=None, *, num_shards: int = 1, **options) -> Written:
        index = write_tfrecords(source, tmp_path / "out" / "x-*.tfrecord", features, num_shards=num_shards, **options)
        found = features_from_json(index.features)
        parsing = {key: each for name, feature in found.items() for key, each in feature.parsing(name).items()}
        files = [str(tmp_path / "out" / shard.name) for shard in index.shards]
        parsed = tf.io.parse_example(list(tf.data.TFRecordDataset(files).as_numpy_iterator()), parsing)
        columns = {name: feature.finish(name, parsed) for name, feature in found.items()}
        return Written(found, columns, [shard.num_records for shard in index.shards])

    return write


def test_arrays_keep_dtype_and_shape_and_order(written):
    arrays = {
        "image": np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2),
        "double": np.linspace(0, 1, 5),
        "flag": np.array([True, False, True, True, False]),
        "name": np.array(["a", "bc", "", "d", "e"]),
        "label": np.arange(5, dtype=np.int32),
    }
    found = written(arrays, num_shards=2)
    assert found.features == {
        "image": Tensor((2, 2), "uint8"),
        "double": Tensor((), "float64"),
        "flag": Tensor((), "bool"),
        "name": String(),
        "label": Tensor((), "int32"),
    }
    assert found.rows_of_shards == [2, 3], "contiguous, since the number is known"
    for name in ("image", "double", "flag", "label"):
        assert found.columns[name].dtype == arrays[name].dtype
        assert np.array_equal(found.columns[name], arrays[name])
    assert found.columns["name"].numpy().tolist() == [b"a", b"bc", b"", b"d", b"e"]


def test_lists_of_different_lengths_are_ragged(written):
    found = written({"tokens": [[], [1, 2], [3]], "words": [["a"], [], ["b", "c"]]})
    assert found.features == {"tokens": Ragged("int64"), "words": Ragged("string")}
    assert found.columns["tokens"].to_list() == [[], [1, 2], [3]]
    assert found.columns["words"].to_list() == [[b"a"], [], [b"b", b"c"]]


def test_a_data_set_of_mappings(written):
    dataset = tf.data.Dataset.range(6).map(
        lambda i: {
            "scalar": tf.cast(i, tf.int32),
            "list": tf.range(i),
            "text": tf.strings.as_string(i),
            "sparse": tf.sparse.from_dense(tf.one_hot(i, 6)),
        }
    )
    found = written(dataset)
    assert found.features == {
        "scalar": Tensor((), "int32"),
        "list": Ragged("int64"),
        "text": String(),
        "sparse": Sparse((6,), "float32"),
    }
    assert found.columns["list"].to_list() == [list(range(i)) for i in range(6)]
    assert np.array_equal(tf.sparse.to_dense(found.columns["sparse"]), np.eye(6))
    assert found.columns["scalar"].numpy().tolist() == list(range(6))


def test_a_data_set_of_pairs_and_one_of_unknown_length(written):
    pairs = tf.data.Dataset.from_tensor_slices((np.zeros((4, 2), np.float32), [1, 2, 3, 4]))
    found = written(pairs, num_shards=2)
    assert found.features == {"x": Tensor((2,), "float32"), "label": Tensor((), "int32")}
    assert found.columns["label"].numpy().tolist() == [1, 2, 3, 4]
    filtered = pairs.map(lambda x, y: ({"a": x}, y)).filter(lambda _, y: y != 2)
    found = written(filtered, num_shards=2, overwrite=True)
    assert list(found.features) == ["a", "label"]
    assert found.columns["label"].numpy().tolist() == [1, 4, 3], "dealt in turn"


def test_an_iterable_of_mappings(written):
    found = written({"i": i, "f": 0.5, "t": "a", "b": True, "d": np.float64(i), "v": [1, 2]} for i in range(3))
    assert found.features == {
        "i": Tensor((), "int64"),
        "f": Tensor((), "float32"),
        "t": String(),
        "b": Tensor((), "bool"),
        "d": Tensor((), "float64"),
        "v": Tensor((2,), "int64"),
    }
    assert found.columns["i"].numpy().tolist() == [0, 1, 2]
    found = written([{"v": [1]}, {"v": []}], {"v": VariableLength("int64")}, overwrite=True)
    assert found.columns["v"].numpy().tolist() == [[1], [0]]


CSV = '''\
id,price,name,zip,note,mixed
1,0.5,"Ann, or ""Annie""",00501,,1
-2,1e3,"two
lines",10001,,2.5
3,,Bö,94105,,x
'''


def test_a_csv_file(written, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\ufeff" + CSV, encoding="utf-8")
    found = written(path)
    kinds = {"id": Tensor((), "int64"), "price": Tensor((), "float32")}
    assert found.features == {**kinds, **dict.fromkeys(("name", "zip", "note", "mixed"), String())}
    assert found.columns["id"].numpy().tolist() == [1, -2, 3]
    np.testing.assert_array_equal(found.columns["price"], np.array([0.5, 1000, np.nan], np.float32))
    assert found.columns["name"].numpy().tolist() == [b'Ann, or "Annie"', b"two\nlines", "Bö".encode()]
    assert found.columns["zip"].numpy().tolist() == [b"00501", b"10001", b"94105"], "its zeros are kept"
    found = written(path, {"id": Tensor((), "float64"), "mixed": String()}, overwrite=True)
    assert found.columns["id"].numpy().tolist() == [1.0, -2.0, 3.0]


def test_tabs(written, tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1\tx,y\n\n2\tz\n")
    found = written(tmp_path / "t.tsv")
    assert found.columns["b"].numpy().tolist() == [b"x,y", b"z"]


def test_an_npz_file(written, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(6, dtype=np.float16).reshape(3, 2), y=np.arange(3))
    found = written(str(tmp_path / "a.npz"))
    assert found.features == {"x": Tensor((2,), "float16"), "y": Tensor((), "int64")}
    assert found.columns["x"].numpy().tolist() == [[0, 1], [2, 3], [4, 5]]


def test_the_arrays_of_keras(written):
    images = columns_of("mnist", (np.zeros((2, 28, 28), np.uint8), np.array([3, 4], np.uint8)))
    assert images["image"].shape == (2, 28, 28, 1)
    assert written(images).features == {"image": Tensor((28, 28, 1), "uint8"), "label": Tensor((), "int64")}
    colours = columns_of("cifar10", (np.zeros((2, 32, 32, 3), np.uint8), np.array([[3], [4]])))
    assert colours["label"].tolist() == [3, 4]
    reviews = columns_of("imdb", (np.array([[1, 2], [3]], object), np.array([0, 1])))
    found = written(reviews, overwrite=True)
    assert found.features == {"tokens": Ragged("int64"), "label": Tensor((), "int64")}
    assert found.columns["tokens"].to_list() == [[1, 2], [3]]


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "expected a header that names each column once"),
        ("a,a\n1,2\n", "expected a header that names each column once"),
        ("a,b\n1\n", "line 2: expected 2 cells, as the header has. Received: 1"),
        ('a,b\n1,"x\n', "line 2: expected rows of a CSV file"),
        ("a\n" + "1\n" * 10_000 + "x\n", "line 10002: column 'a' must be int64. Received: 'x'"),
    ],
)
def test_broken_csv_files(written, tmp_path, content, said):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError) as caught:
        written(tmp_path / "t.csv")
    assert said in str(caught.value)
    assert str(tmp_path / "t.csv") in str(caught.value)
    assert not list((tmp_path).glob("out/*"))


@pytest.mark.parametrize(
    "source, error, said",
    [
        ("data.parquet", ValueError, "must be .csv, .tsv or .npz"),
        ("absent.csv", FileNotFoundError, "Received: source='absent.csv'"),
        ("keras:mnits", ValueError, "Did you mean keras:mnist?"),
        (5, TypeError, "Received: source=5"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, ValueError, "Received: {'x': 2, 'y': 3}"),
        ({"x": 1.0}, ValueError, "Received: {'x': None}"),
        ({}, ValueError, "Received: {}"),
        ([], ValueError, "At least one record"),
        ([1], TypeError, "Records must be mappings"),
        ([{"x": None}], TypeError, "Received: x=None, NoneType. Declare it in features."),
        ([{"x": [[1], [1, 2]]}], TypeError, "Declare it in features."),
        ([{"x": np.array("2020", "M8[D]")}], TypeError, "Declare it in features."),
        (tf.data.Dataset.range(3).repeat(), ValueError, "The data set must end"),
        (tf.data.Dataset.range(3).map(lambda i: (i, i, i)), TypeError, "Make mappings of them"),
        (tf.data.Dataset.range(3).map(lambda i: tf.zeros([2, i])), TypeError, "Shapes must be known"),
    ],
)
def test_sources_that_can_not_be_read(written, source, error, said):
    with pytest.raises(error) as caught:
        written(source)
    assert said in str(caught.value)


def test_a_split_that_keras_does_not_have(written):
    with pytest.raises(ValueError, match=r"Received: split='validation'"):
        written("keras:mnist", split="validation")
