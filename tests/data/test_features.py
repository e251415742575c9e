"""What a feature writes it reads again bit by bit, in batches of no, one and several rows, and in parts of these."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tfdist.data import Image, Ragged, Sparse, String, Tensor, VariableLength
from tfdist.data.features import as_features, features_from_json, features_to_json
from tfdist.data.rows import slice_rows

pytestmark = pytest.mark.unit

LISTS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "string"),
)
FIXED = (*LISTS, "complex128")
ROWS = (0, 1, 5)


@pytest.fixture
def random():
    return np.random.default_rng(7)


def values(random, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits that the dtype can have; NaNs only as NumPy makes them, since casts may change others."""
    if dtype == "string":
        flat = [random.bytes(int(random.integers(0, 5))) + b"\0" for _ in range(int(np.prod(shape)))]
        return np.array([*flat, None], object)[:-1].reshape(shape)
    kind = np.dtype(tf.as_dtype(dtype).as_numpy_dtype)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        return np.frombuffer(random.bytes(int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)
    numbers = random.standard_normal(shape)
    return (numbers + 1j * random.standard_normal(shape) if kind.kind == "c" else numbers).astype(kind)


def serialized(feature, records) -> list[bytes]:
    encoded = [feature.encode("x", value) for value in records]
    return [
        tf.train.Example(features=tf.train.Features(feature=each)).SerializeToString(deterministic=True)
        for each in encoded
    ]


def read(feature, examples: list[bytes], index: int = 0, count: int = 1):
    """In graph code, a function for each stage, with the feature as it comes out of an index."""
    feature = features_from_json(json.loads(json.dumps(features_to_json({"x": feature}))))["x"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def parse(batch):
        parsed = tf.io.parse_example(batch, feature.parsing("x"))
        feature.check("x", parsed)
        return parsed

    @tf.function
    def finish(parsed):
        return feature.finish("x", slice_rows(parsed, index, count))

    return finish(parse(tf.constant(examples, tf.string, shape=[len(examples)])))


def round_trip(feature, records):
    return read(feature, serialized(feature, records))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype == object or right.dtype == object:
        return left.tolist() == right.tolist()
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("dtype", FIXED)
def test_tensors_of_any_dtype_and_shape_come_back_bit_by_bit(random, dtype):
    for shape in ((), (1,), (3, 2), (0,), (2, 0)):
        for rows in ROWS if shape == (3, 2) else (2,):
            records = [values(random, dtype, shape) for _ in range(rows)]
            found = round_trip(Tensor(shape, dtype), records)
            assert found.dtype == tf.as_dtype(dtype)
            assert found.shape == (rows, *shape)
            assert all(same(found.numpy()[i : i + 1].reshape(shape), record) for i, record in enumerate(records))


@pytest.mark.parametrize("dtype", LISTS)
def test_lists_of_any_length(random, dtype):
    for rows in ROWS:
        records = [values(random, dtype, (length,)) for length in (3, 0, 6, 1, 2)[:rows]]
        dense = round_trip(VariableLength(dtype), records)
        assert dense.shape == (rows, (0, 3, None, None, None, 6)[rows])
        assert dense.dtype == tf.as_dtype(dtype)
        longer = round_trip(VariableLength(dtype, length=7), records)
        assert longer.shape == (rows, 7)
        ragged = round_trip(Ragged(dtype), records)
        assert ragged.dtype == tf.as_dtype(dtype)
        for i, record in enumerate(records):
            assert same(ragged[i].numpy(), record)
            for padded in (dense, longer):
                assert same(padded[i].numpy()[: len(record)], record)
                assert not any(padded[i].numpy()[len(record) :])


@pytest.mark.parametrize("dtype", LISTS)
def test_ragged_arrays(random, dtype):
    for rows in ROWS:
        records = [values(random, dtype, (length, 2, 3)) for length in (2, 0, 3, 1, 0)[:rows]]
        found = round_trip(Ragged(dtype, (2, 3)), records)
        assert found.shape.as_list() == [rows, None, 2, 3]
        assert all(same(found[i].numpy(), record) for i, record in enumerate(records))


@pytest.mark.parametrize("dtype", LISTS)
def test_sparse_arrays(random, dtype):
    for rows in ROWS:
        places = [np.argwhere(random.integers(0, 2, (3, 4))) for _ in range(rows)]
        contents = [values(random, dtype, (len(each),)) for each in places]
        found = round_trip(Sparse((3, 4), dtype), list(zip(places, contents, strict=True)))
        assert found.dense_shape.numpy().tolist() == [rows, 3, 4]
        for i in range(rows):
            mine = found.indices.numpy()[:, 0] == i
            assert same(found.indices.numpy()[mine][:, 1:], places[i])
            assert same(found.values.numpy()[mine], contents[i])


def test_a_sparse_array_is_given_in_three_ways_and_its_indices_in_any_order():
    dense = np.zeros((3, 4), np.float32)
    dense[2, 1], dense[0, 3] = 5, 7
    ways = [dense, ([[2, 1], [0, 3]], [5.0, 7.0]), tf.sparse.from_dense(dense)]
    first, *others = serialized(Sparse((3, 4)), ways)
    assert others == [first, first]
    assert serialized(Sparse((9,)), [([4, 2], [1.0, 2.0])]) == serialized(Sparse((9,)), [([[2], [4]], [2.0, 1.0])])
    assert round_trip(Sparse((3, 4)), [np.zeros((3, 4), np.float32)]).dense_shape.numpy().tolist() == [1, 3, 4]


def test_images(random):
    array = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    for rows in (0, 1, 3):
        assert np.array_equal(round_trip(Image((5, 6, 3)), [array] * rows), np.zeros((rows, 5, 6, 3), int) + array)
    as_jpeg = tf.io.encode_jpeg(array).numpy()
    assert round_trip(Image(encoding="jpeg"), [array]).numpy().tolist() == [as_jpeg]
    assert np.array_equal(round_trip(Image((5, 6, 3)), [as_jpeg])[0], tf.io.decode_jpeg(as_jpeg))
    gray = random.integers(0, 256, (4, 4, 1), dtype=np.uint8)
    assert round_trip(Image(), [array, gray]).shape == (2,), "of any shape"
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"has an image of another shape than \(4, 6, 3\)"):
        read(Image((4, 6, 3)), serialized(Image(), [array]))


def test_text_and_bytes():
    assert round_trip(String(), ["Grüße", b"\0\xff\0", np.str_("a"), tf.constant("b")]).numpy().tolist() == [
        *("Grüße".encode(), b"\0\xff\0"),
        *(b"a", b"b"),
    ]
    assert round_trip(Tensor((2,), "string"), [["a", b"b\0"]]).numpy().tolist() == [[b"a", b"b\0"]]


@pytest.mark.parametrize(
    "feature, records",
    [
        (Tensor((2,), "uint8"), [np.array([i, 2 * i], np.uint8) for i in range(5)]),
        (Tensor((2,), "float32"), [np.array([i, 2 * i], np.float32) for i in range(5)]),
        (VariableLength("int64"), [np.arange(i) for i in range(5)]),
        (Ragged("int64", (2,)), [np.arange(2 * i).reshape(-1, 2) for i in range(5)]),
        (Sparse((5,)), [np.eye(5, dtype=np.float32)[i] for i in range(5)]),
        (Image((1, 1, 1)), [np.full((1, 1, 1), i, np.uint8) for i in range(5)]),
    ],
)
def test_rows_may_be_taken_between_parsing_and_finishing(feature, records):
    def rows(tensor) -> list:
        if isinstance(tensor, tf.RaggedTensor):
            return tensor.to_list()
        return (tf.sparse.to_dense(tensor) if isinstance(tensor, tf.SparseTensor) else tensor).numpy().tolist()

    examples = serialized(feature, records)
    for count in (2, 7):  # of seven slices some have no row
        parts = [rows(read(feature, examples, index, count)) for index in range(count)]
        assert [row for part in parts for row in part] == rows(read(feature, examples)), "padded alike too"


def test_padding():
    records = [[1], [], [1, 2]]
    assert round_trip(VariableLength("int64", padding=-1), records).numpy().tolist() == [[1, -1], [-1, -1], [1, 2]]
    words = round_trip(VariableLength("string", padding="?", length=3), [["a", "b"]])
    assert words.numpy().tolist() == [[b"a", b"b", b"?"]]
    assert np.isnan(round_trip(VariableLength("float64", padding=np.nan), [[1.0], []]).numpy()[1, 0])
    with pytest.raises(ValueError, match=r"at most 2 values. Received: x with 3"):
        VariableLength("int64", length=2).encode("x", [1, 2, 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="more values in a record than its length"):
        read(VariableLength("int64", length=2), serialized(VariableLength("int64"), [[1, 2, 3]]))


@pytest.mark.parametrize(
    "dtype, value, expected",
    [
        ("uint8", 255, 255),
        ("uint8", np.int64(255), 255),
        ("int64", np.uint8(7), 7),
        ("int64", -(2**63), -(2**63)),
        ("int64", True, 1),
        ("float32", 0.1, np.float32(0.1)),
        ("float32", 3, 3.0),
        ("float32", np.float16(0.5), 0.5),
        ("float64", np.float32(0.5), 0.5),
        ("float32", np.inf, np.inf),
        ("bfloat16", 0.5, 0.5),
        ("float32", tf.constant(2.5), 2.5),
        ("complex64", 1.5, 1.5),
    ],
)
def test_values_that_lose_nothing_are_converted(dtype, value, expected):
    assert round_trip(Tensor((), dtype), [value]).numpy().tolist() == [expected]


@pytest.mark.parametrize(
    "feature, value, error, said",
    [
        (Tensor((), "uint8"), 256, TypeError, "'x' must be uint8. Received: x=256, int"),
        (Tensor((), "int64"), 1.0, TypeError, "'x' must be int64. Received: x=1.0, float"),
        (Tensor((), "int64"), 2**63, TypeError, "must be int64"),
        (Tensor((), "int64"), None, TypeError, "Received: x=None, NoneType"),
        (Tensor((), "int64"), "1", TypeError, "must be int64. Received: x='1', str"),
        (Tensor((), "float32"), 1e300, TypeError, "must be float32"),
        (Tensor((2,), "float32"), np.zeros(2), TypeError, "ndarray of dtype float64"),
        (Tensor((2,), "float32"), np.zeros(2, np.int64), TypeError, "ndarray of dtype int64"),
        (Tensor((2,), "float32"), [[1.0], [1.0, 2.0]], TypeError, "must be float32"),
        (Tensor((2,), "uint8"), np.zeros(2), TypeError, "must be uint8"),
        (Tensor((), "string"), 5, TypeError, "must be str or bytes. Received: x=5"),
        (String(), None, TypeError, "must be str or bytes. Received: x=None"),
        (String(), ["a"], ValueError, r"must have shape \(\). Received: x of shape \(1,\)"),
        (Tensor((2, 3)), np.zeros((3, 2), np.float32), ValueError, r"shape \(2, 3\). Received: x of shape \(3, 2\)"),
        (Ragged("float32", (2,)), np.zeros((3, 4), np.float32), ValueError, r"\(any length, 2\)"),
        (VariableLength(), 3, ValueError, r"shape \(any length\). Received: x of shape \(\)"),
        (Sparse((3,)), ([3], [1.0]), ValueError, r"inside of its shape, \(3,\)"),
        (Sparse((3,)), ([-1], [1.0]), ValueError, "inside of its shape"),
        (Sparse((3,)), ([1, 1], [1.0, 2.0]), ValueError, r"each index once. Received: index \[1\]"),
        (Sparse((3,)), ([1, 2], [1.0]), ValueError, r"indices of shape \(2, 1\), values of shape \(1,\)"),
        (Sparse((3,)), ([1],), ValueError, "a pair"),
        (Image(), np.zeros((2, 2, 3)), TypeError, "bytes or a uint8 array. Received: dtype float64"),
        (Image(), "photo.png", TypeError, "Received: str"),
        (Image(), b"no image", ValueError, "bytes of a PNG, JPEG, GIF or BMP file"),
        (Image((2, 2, 3)), np.zeros((2, 2, 1), np.uint8), ValueError, r"shape \(2, 2, 3\). Received: shape"),
        (Image(encoding="jpeg"), np.zeros((2, 2, 4), np.uint8), ValueError, r"channels one of \(1, 3\)"),
    ],
)
def test_values_that_do_not_fit_are_refused(feature, value, error, said):
    with pytest.raises(error, match=said):
        feature.encode("x", value)


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: Tensor((None, 3)), TypeError, "For values of any length use tfdist.data.VariableLength"),
        (lambda: Tensor(3), TypeError, "Received: shape=3"),
        (lambda: Tensor((-1,)), ValueError, "at least 0"),
        (lambda: Tensor((), "flaot32"), TypeError, "Received: dtype='flaot32'"),
        (lambda: Tensor((), "resource"), TypeError, "Received: dtype='resource'"),
        (lambda: Ragged("complex128"), TypeError, "Received: dtype='complex128'"),
        (lambda: Ragged("int64", (0,)), ValueError, "at least 1. Received: inner_shape"),
        (lambda: VariableLength("int64", padding="a"), TypeError, "'padding' must be int64"),
        (lambda: VariableLength("int64", length=0), ValueError, "at least 1. Received: length=0"),
        (lambda: Sparse(()), ValueError, "Use tfdist.data.Tensor"),
        (lambda: Image((2, 2)), ValueError, r"Received: shape=\(2, 2\)"),
        (lambda: Image(encoding="webp"), ValueError, "Received: encoding='webp'"),
        (lambda: as_features({}), ValueError, "At least one feature"),
        (lambda: as_features([1]), TypeError, "must be a mapping"),
        (lambda: as_features({"x": "int64"}), TypeError, "Received: x='int64'"),
        (lambda: as_features({"x": Sparse((2,)), "x/values": String()}), ValueError, "Rename one"),
        (lambda: features_from_json({"x": {"kind": "video"}}), ValueError, "Read it with the version of tfdist"),
    ],
)
def test_wrong_declarations_are_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


@pytest.mark.parametrize(
    "config, value",
    [
        (tf.io.FixedLenFeature([2], tf.float32), np.array([1, 2], np.float32)),
        (tf.io.FixedLenFeature([], tf.int64, default_value=5), 3),
        (tf.io.FixedLenFeature([], tf.string, default_value=b"\xff"), b"a"),
        (tf.io.FixedLenSequenceFeature([2], tf.int64, allow_missing=True), [[1, 2], [3, 4]]),
        (tf.io.VarLenFeature(tf.int64), [1, 2, 3]),
        (tf.io.RaggedFeature(tf.string), ["a", "b"]),
    ],
)
def test_what_tensorflow_calls_features_is_read_and_written_as_tensorflow_does(config, value):
    feature = as_features({"x": config})["x"]
    examples = serialized(feature, [value])
    expected = tf.io.parse_example(examples, {"x": config})["x"]
    found = read(feature, examples)
    assert type(found) is type(expected)
    parts = [tf.nest.flatten(each, expand_composites=True) for each in (found, expected)]
    assert all(np.array_equal(a, b) for a, b in zip(*parts, strict=True))
    again = features_from_json(json.loads(json.dumps(features_to_json({"x": config}))))
    assert again == {"x": feature}


def test_partitions_and_sparse_features_of_tensorflow_are_read_only():
    partitioned = tf.io.RaggedFeature(
        tf.int64,
        value_key="v",
        partitions=[tf.io.RaggedFeature.RowLengths("n"), tf.io.RaggedFeature.UniformRowLength(2)],
    )
    sparse = tf.io.SparseFeature("i", "v", tf.int64, 9)
    for config in (partitioned, sparse):
        (feature,) = as_features({"x": config}).values()
        assert features_from_json(json.loads(json.dumps({"x": feature.to_json()}))) == {"x": feature}
        with pytest.raises(TypeError, match="can be read, not written"):
            feature.encode("x", [1])
    lists = {"v": [1, 2, 3, 4], "n": [2], "i": [0, 3, 5, 8]}
    encoded = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=each)) for name, each in lists.items()}
    example = tf.train.Example(features=tf.train.Features(feature=encoded)).SerializeToString()
    (feature,) = as_features({"x": sparse}).values()
    assert read(feature, [example]).indices.numpy()[:, 1].tolist() == [0, 3, 5, 8]


def test_a_value_in_another_width_than_tensorflow_has_is_not_written_as_bytes():
    with pytest.raises(TypeError, match=r"Declare the feature as tfdist.data.Tensor"):
        as_features({"x": tf.io.FixedLenFeature([], tf.uint8)})["x"].encode("x", 1)
