from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tfdist.cli.main import main
from tfdist.data import Image, Ragged, String, Tensor, TFRecordWriter, VariableLength, read_tfrecords
from tfdist.data.files.index import DatasetIndex
from tfdist.data.files.statistics import Moments

pytestmark = pytest.mark.unit

FEATURES = {"id": Tensor((), "int64"), "raw": Tensor((4,), "uint8"), "tokens": VariableLength("int64")}


@pytest.fixture
def data(capsys):
    """Runs the command, in this process since TensorFlow is here already; returns exit code, stdout, stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        code = main(["data", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def pattern(tmp_path) -> str:
    """Ten records in two files: the even ones, the odd ones."""
    path = str(tmp_path / "x-*.tfrecord")
    with TFRecordWriter(path, FEATURES, num_shards=2) as writer:
        for i in range(10):
            writer.write(id=i, raw=np.full(4, i, np.uint8), tokens=range(i))
    return path


def shard(pattern: str, number: int, count: int = 2) -> str:
    return pattern.replace("*", f"{number:05d}-of-{count:05d}")


def damage(path: str, at: int, replacement: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(replacement)


def offsets(pattern: str, number: int) -> list[int]:
    index = DatasetIndex.load(pattern.replace("-*.tfrecord", ".tfdist-index"))
    return index.shards[number].offsets.tolist()


def ids(pattern: str) -> list[int]:
    return [int(i) for batch in read_tfrecords(pattern, batch_size=3) for i in batch["id"]]


def foreign(path) -> str:
    """A file that another program wrote."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in range(3):
            feature = {"n": tf.train.Feature(int64_list=tf.train.Int64List(value=range(i)))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


def test_what_is_written_is_inspected_verified_and_read(data, tmp_path):
    (tmp_path / "t.csv").write_text("id,price,name\n1,0.5,Ann\n2,1.5,Bö\n3,,Ann\n")
    to = tmp_path / "out" / "t"
    code, said, _ = data("write", f"--from={tmp_path / 't.csv'}", f"--to={to}", "--num_shards=2", "--compression=GZIP")
    assert (code, said) == (0, "3 records in 2 files of id, price, name\n")
    code, said, _ = data("inspect", to, "--records=1")
    assert code == 0
    for line in (
        "files       2",
        "records     3",
        "price  Tensor(shape=(), dtype='float32')",
        "name   'Ann'",
        "price  0.5",
    ):
        assert line in said
    assert ", GZIP" in said
    assert "record 0" in said and "record 1" not in said
    code, said, _ = data("verify", to)
    assert (code, said) == (0, "All is well: 3 whole records in 2 files.\n")
    code, said, _ = data("stats", to)
    assert "0.5 to 1.5, mean 1, std 0.5, 1 not finite" in said
    assert "'Ann': 2, 'Bö': 1" in said
    batch = next(iter(read_tfrecords(to, batch_size=3)))
    assert sorted(batch["id"].numpy().tolist()) == [1, 2, 3]


def test_files_that_are_there_are_replaced_only_if_asked(data, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(4))
    line = ("write", f"--from={tmp_path / 'a.npz'}", f"--to={tmp_path / 'a'}", "--num_shards=1")
    assert data(*line)[0] == 0
    code, _, said = data(*line)
    assert code == 2
    assert said.startswith("tfdist data write: No shards must be there yet.")
    assert data(*line, "--overwrite")[0] == 0


def test_records_are_shown_in_readable_form(data, tmp_path):
    features = {"image": Image((8, 8, 1)), "file": Image(), "boxes": Ragged("float32", (4,)), "text": String()}
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    with TFRecordWriter(tmp_path / "x", features, num_shards=1) as writer:
        writer.write(image=image, file=image, boxes=np.ones((2, 4), np.float32), text="long " * 50)
    _, said, _ = data("inspect", tmp_path / "x")
    assert "image  uint8[8, 8, 1] from 0 to 63, mean 31.5" in said
    assert "boxes  [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]" in said
    assert "(250 bytes)" in said
    assert "Ragged(dtype='float32', inner_shape=(4,))" in said


def test_files_of_others(data, tmp_path):
    path = foreign(tmp_path / "theirs.tfrecord")
    code, said, _ = data("inspect", path)
    assert code == 0
    assert "1 without an index" in said
    assert "assumed from the first records" in said
    assert "n  [0, 1]" in said
    code, said, _ = data("stats", path)
    assert "0 to 1, mean 0.333333" in said
    code, said, _ = data("verify", path)
    assert code == 0
    assert "No index says what a record holds" in said
    code, said, _ = data("index", path)
    assert (code, said) == (0, f"{tmp_path / 'theirs.tfdist-index'}: 3 records in 1 files\n")
    assert DatasetIndex.load(str(tmp_path / "theirs.tfdist-index")).num_records == 3


def test_an_index_that_was_lost_or_is_old(data, pattern, tmp_path):
    damage(shard(pattern, 0), 0, pathlib.Path(shard(pattern, 1)).read_bytes())
    data("index", shard(pattern, 0), shard(pattern, 1))
    index = DatasetIndex.load(str(tmp_path / "x.tfdist-index"))
    assert list(index.features) == list(FEATURES), "kept"
    code, _, said = data("index", pattern, foreign(tmp_path / "theirs.tfrecord"))
    assert code == 2
    assert "must be of one data set" in said


@pytest.mark.parametrize("shards", [1, 2, 3, 12])
@pytest.mark.parametrize("compression", ["NONE", "GZIP", None])
def test_resharding_keeps_records_order_and_features(data, pattern, tmp_path, shards, compression):
    before = ids(pattern)
    to = tmp_path / "y-*.tfrecord"
    options = [] if compression is None else [f"--compression={compression}"]
    assert data("reshard", pattern, f"--to={to}", f"--num_shards={shards}", *options)[0] == 0
    assert len(list(tmp_path.glob("y-*.tfrecord"))) == shards
    assert ids(str(to)) == before
    batch = next(iter(read_tfrecords(str(to), batch_size=10)))
    assert batch["tokens"].shape == (10, 9)
    assert DatasetIndex.load(str(tmp_path / "y.tfdist-index")).compression == ("GZIP" if compression == "GZIP" else "")


def test_resharding_in_place_and_of_broken_files(data, pattern, tmp_path):
    before = ids(pattern)
    line = ("reshard", pattern, f"--to={pattern}", "--num_shards=3")
    assert data(*line)[0] == 2
    assert data(*line, "--overwrite")[0] == 0
    assert ids(pattern) == before
    assert len(list(tmp_path.iterdir())) == 4
    damage(shard(pattern, 1, 3), 30, b"\xff")
    code, _, said = data("reshard", pattern, f"--to={tmp_path / 'y'}", "--num_shards=1")
    assert code == 2
    assert shard(pattern, 1, 3) in said
    assert "tfdist data verify" in said
    (tmp_path / shard(pattern, 2, 3)).unlink()
    code, _, said = data("reshard", pattern, f"--to={tmp_path / 'y'}", "--num_shards=1")
    assert "1 missing" in said
    assert not list(tmp_path.glob("*y-*"))


def test_every_fault_is_listed_with_its_place(data, pattern):
    first, second = offsets(pattern, 0), offsets(pattern, 1)
    damage(shard(pattern, 0), first[1] + 20, b"\xff\xff")
    damage(shard(pattern, 0), first[3], b"\xff")
    with open(shard(pattern, 1), "r+b") as file:
        file.truncate(second[3] + 5)
    code, said, _ = data("verify", pattern)
    assert code == 1
    lines = said.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{shard(pattern, 0)}: record 1 at byte {first[1]}: its ")
    assert lines[1].startswith(f"{shard(pattern, 0)}: record 3 at byte {first[3]}: its length field is damaged")
    assert lines[2].startswith(f"{shard(pattern, 1)}: record 3 at byte {second[3]}: the file ends within it")
    assert "2 records are missing" in lines[2]
    assert lines[3] == "3 faults; 6 whole records in 2 files."


def test_without_an_index_the_faults_up_to_a_damaged_length_are_listed(data, pattern, tmp_path):
    first = offsets(pattern, 0)
    (tmp_path / "x.tfdist-index").unlink()
    damage(shard(pattern, 0), first[1] + 20, b"\xff\xff")
    damage(shard(pattern, 0), first[3], b"\xff")
    code, said, _ = data("verify", pattern)
    assert code == 1
    assert f"record 1 at byte {first[1]}: its " in said
    assert f"record 3 at byte {first[3]}: its length field is damaged; what follows can't be found" in said
    assert "2 faults; 7 whole records" in said


def test_faults_of_whole_files(data, pattern, tmp_path):
    with TFRecordWriter(tmp_path / "y", FEATURES, num_shards=1) as writer:
        for i in (0, 2, 4, 6, 9):
            writer.write(id=i, raw=np.full(4, i, np.uint8), tokens=range(i))
    same_size = {**FEATURES, "tokens": VariableLength("int64")}
    with TFRecordWriter(tmp_path / "z", same_size, num_shards=1) as writer:
        for i in (1, 3, 5, 7, 9):
            writer.write(id=i, raw=np.full(4, 0, np.uint8), tokens=range(i))
    (tmp_path / "y-00000-of-00001.tfrecord").replace(shard(pattern, 0))
    (tmp_path / "z-00000-of-00001.tfrecord").replace(shard(pattern, 1))
    code, said, _ = data("verify", pattern)
    assert code == 1
    assert f"{shard(pattern, 0)}:" in said
    assert f"{shard(pattern, 1)}: the file was changed after its index was written; its records are whole" in said
    (tmp_path / shard(pattern, 0)).unlink()
    code, said, _ = data("verify", pattern)
    assert f"{shard(pattern, 0)}: the file is missing\n" in said


def test_records_that_do_not_hold_what_the_index_says(data, tmp_path):
    pattern = str(tmp_path / "x-*.tfrecord")
    with TFRecordWriter(pattern, FEATURES, num_shards=1) as writer:
        for i in range(600):
            writer.write(id=i, raw=np.zeros(4, np.uint8), tokens=[])
            if i == 299:
                writer.write_serialized(b"no example")
                writer.write_serialized(tf.train.Example().SerializeToString())
    index = DatasetIndex.load(str(tmp_path / "x.tfdist-index"))
    at = index.shards[0].offsets.tolist()
    code, said, _ = data("verify", pattern)
    assert code == 1
    path = shard(pattern, 0, 1)
    assert said.splitlines() == [
        f"{path}: record 300 at byte {at[300]}: its 10 bytes are no tf.train.Example",
        f"{path}: record 301 at byte {at[301]}: feature 'id' is missing; the record has none",
        "2 faults; 602 whole records in 1 files.",
    ]
    code, _, said = data("stats", pattern)
    assert code == 2
    assert f"{path}: records 256 to 511" in said


def test_statistics(data, pattern):
    code, said, _ = data("stats", pattern)
    assert code == 0
    assert said.startswith("records 10 in 2 files\n  of a file       5 to 5, mean 5, std 0\n")
    assert "id\n  values   0 to 9, mean 4.5, std 2.87228\n  top      0: 1, 2: 1," in said
    assert "tokens\n  values   0 to 8, mean 2.66667, std 2.21108\n  lengths  0 to 9, mean 4.5," in said, "no padding"


def test_moments_of_numbers_that_come_in_parts_are_those_of_all():
    numbers = np.random.default_rng(3).normal(1e6, 1.0, 1000)
    moments = Moments()
    for part in np.array_split(numbers, 7):
        moments.add(part)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, numbers.mean(), rtol=1e-12)
    np.testing.assert_allclose(moments.squares / 1000, numbers.var(), rtol=1e-7)
    assert (moments.least, moments.most) == (numbers.min(), numbers.max())


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "An action must be given"),
        (["wirte"], "Did you mean: tfdist data write?"),
        (["verify"], "A pattern must be given. Write for example: tfdist data verify"),
        (["write", "--to=x"], "--from must be given"),
        (["write", "--from=a.csv", "--to=x"], "--num_shards must be given"),
        (["write", "--from=a.csv", "--to=x", "--num_shards=two"], "--num_shards must be an integer"),
        (["write", "a.csv"], "takes options only. Received: 'a.csv'"),
        (["reshard", "x", "--tO=y"], "Unknown option --tO. Did you mean --to?"),
        (["inspect", "x", "--records=-1"], "--records must be a non-negative integer"),
        (["inspect", "absent-*"], "tfdist data inspect: At least one TFRecord file must match"),
        (["write", "--from=absent.csv", "--to=x", "--num_shards=1"], "The file must be there"),
        (["write", "--from=keras:mnits", "--to=x", "--num_shards=1"], "Did you mean keras:mnist?"),
        (["write", "--from=x.xls", "--to=x", "--num_shards=1"], "must be .csv, .tsv or .npz"),
    ],
)
def test_wrong_command_lines(data, monkeypatch, tmp_path, argv, said):
    monkeypatch.chdir(tmp_path)
    code, _, errors = data(*argv)
    assert code == 2
    assert said in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv", [["--help"], ["write", "--help"], ["reshard", "x", "--help"], ["index", "-h"]])
def test_help(data, argv):
    code, said, _ = data(*argv)
    assert code == 0
    action = argv[0] if len(argv) > 1 else "ACTION"
    assert said.startswith(f"usage: tfdist data {action} ")
    assert "tfdist data" in said
