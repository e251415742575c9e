"""Files that somebody has made to do harm: an error that says what is wrong, and nothing is run, read or filled."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import logging
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import tfdist
from tests.helpers.setups import features, labels
from tfdist.checkpoint.files import MANIFEST, CheckpointFiles
from tfdist.checkpoint.state import ARRAYS, VALUES, WEIGHTS
from tfdist.config import load
from tfdist.errors import CheckpointError, ConfigError
from tfdist.gradients.checkpoint_state import from_bytes, to_bytes

pytestmark = pytest.mark.unit

PACKAGE = Path(__file__).parent.parent / "tfdist"
#: Beside what a test needs itself.
MOST_GROWTH_BYTES = 300e6


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def train(directory: Path, **options: Any) -> Any:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), keras.layers.Dropout(0.1)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plateau = keras.callbacks.ReduceLROnPlateau("loss")
    callbacks = [tfdist.callbacks.Checkpoint(directory, **options), plateau]
    return model.fit(features(8), labels(8), batch_size=4, epochs=2, verbose=0, callbacks=callbacks)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint in the middle of an epoch."""
    directory = tmp_path_factory.mktemp("made")
    train(directory, every_steps=1, keep=10)
    folder = directory / "epoch-0000-step-000001"
    return {file: (folder / file).read_bytes() for file in (WEIGHTS, ARRAYS, VALUES)}


@pytest.fixture
def hostile(tmp_path: Path, made: dict[str, bytes]) -> Callable[..., Path]:
    """`hostile(ARRAYS, content)` is a directory with a checkpoint whose manifest fits that file."""

    def write(file: str, content: bytes) -> Path:
        CheckpointFiles(tmp_path / "run", 3).write(0, 1, {**made, file: content})
        return tmp_path / "run"

    return write


def refuse(directory: Path, file: str, said: str = "") -> None:
    """Training doesn't go on from it, and says why, in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=rf"Received: .*{file}.*{said}") as error:
        train(directory)
    assert "remove its folder" in str(error.value)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MOST_GROWTH_BYTES


def changed_arrays(made: dict[str, bytes], **arrays: Any) -> bytes:
    return to_bytes({**from_bytes(made[ARRAYS]), **{name.replace("__", "/"): one for name, one in arrays.items()}})


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(shape: tuple[int, ...], content: bytes = b"", dtype: str = "<f8") -> bytes:
    """A file that says it is an array of this shape."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def compressed_zeros() -> bytes:
    """Half a gigabyte in half a megabyte."""
    file, size = io.BytesIO(), 1 << 29
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a", "w") as out:
        out.write(npy((size // 8,)))
        for _ in range(size >> 20):
            out.write(bytes(1 << 20))
    return file.getvalue()


# state.npz


def test_pickled_objects_stay_pickled(hostile, tmp_path, made):
    bomb = np.array([Touches(tmp_path / "ran")], dtype=object)
    archive, bare = io.BytesIO(), pickle.dumps(Touches(tmp_path / "ran"))
    np.savez(archive, **from_bytes(made[ARRAYS]), more=bomb)
    refuse(hostile(ARRAYS, archive.getvalue()), ARRAYS, "Object arrays cannot be loaded")
    refuse(hostile(ARRAYS, bare), ARRAYS)
    refuse(hostile(ARRAYS, zipped({"more.npy": bare})), ARRAYS)
    assert not (tmp_path / "ran").exists()
    pickle.loads(bare)
    assert (tmp_path / "ran").exists(), "or it would have done no harm"


BOMBS = {
    "zeros that were compressed": compressed_zeros,
    "a shape without numbers": lambda: zipped({"a.npy": npy((1 << 50,))}),
    "a shape that is too large for a number": lambda: zipped({"a.npy": npy((1 << 40, 1 << 40))}),
    "a shape that is negative": lambda: zipped({"a.npy": npy((-1,))}),
    "no archive": lambda: npy((2,), bytes(16)),
    "no array": lambda: zipped({"a.npy": b"text"}),
    "a header that is code": lambda: zipped({"a.npy": npy((2,)).replace(b"(2,)", b"f()")}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_arrays_that_are_none(hostile, bomb):
    refuse(hostile(ARRAYS, BOMBS[bomb]()), ARRAYS)


def test_an_archive_whose_parts_are_one_part(hostile):
    """The same bytes, listed again and again, would be unpacked again and again."""
    entry = zipped({"a.npy": npy((1 << 17,), bytes(1 << 20))})
    listing = entry.rindex(b"PK\x01\x02")
    end = entry.rindex(b"PK\x05\x06")
    many = b"".join(entry[listing:end].replace(b"a.npy", f"{number:05}".encode()) for number in range(2000))
    close = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2000, 2000, len(many), listing, 0)
    refuse(hostile(ARRAYS, entry[:listing] + many + close), ARRAYS, "bytes that are there")


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_file_that_was_cut_off_before_its_manifest_was_made(hostile, made, cut):
    refuse(hostile(ARRAYS, made[ARRAYS][:-cut]), ARRAYS)
    refuse(hostile(VALUES, made[VALUES][:-cut]), VALUES)
    refuse(hostile(WEIGHTS, made[WEIGHTS][:-cut]), WEIGHTS)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("worker0__random__numpy", np.full(626, 10**6)),  # would be read from outside of the generator's memory
        ("worker0__random__numpy", np.zeros(3)),
        ("worker0__random__python", np.zeros(0)),
        ("seeds__0", np.zeros([7, 7])),
        ("worker0__metrics__0__0", np.zeros([100])),
        ("worker0__metrics__0__0", np.array(["text"])),
    ],
)
def test_arrays_of_another_kind(hostile, made, name, array):
    assert name.replace("__", "/") in from_bytes(made[ARRAYS])
    refuse(hostile(ARRAYS, changed_arrays(made, **{name: array})), ARRAYS)


def test_arrays_that_are_missing(hostile):
    refuse(hostile(ARRAYS, to_bytes({"other": np.zeros(1)})), ARRAYS, "seeds/0")


# state.json

WRONG = {
    "place": [None, [], {}, {"epoch": 0, "step": 1}, {"epoch": 0, "step": -1, "steps": 1}],
    "data": ["", {"iterators": "os", "is_open": True, "batches": 1}, {"iterators": "", "is_open": 1, "batches": 1}],
    "positions": [None, {}, [1], [[0, "1"]], [[0, 1, 2]]],
    "workers": ["1", None, 1.5, -1, True, 1 << 70],
    "has_ended": [1, "no"],
    "logs": [[], {"loss": {"__array__": "nowhere"}}, {"__array__": ["loss"]}, {"__items__": 3}],
    "history_epochs": [3, ["0"]],
    "history": ["loss", {"__tuple__": 5}],
    "callbacks": [[], {"ReduceLROnPlateau": [1]}, {"ReduceLROnPlateau": {"wait": {"__array__": "nowhere"}}}],
    "model": [{}, {"optimizer": "Adam", "variables": [["a", 3, "float32"]]}, {"optimizer": 1, "variables": []}],
    "format": [2, "1", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_values_of_another_kind(hostile, made, name, value):
    values = json.loads(made[VALUES])
    assert name in values
    refuse(hostile(VALUES, json.dumps({**values, name: value}).encode()), VALUES, name)
    del values[name]
    refuse(hostile(VALUES, json.dumps(values).encode()), VALUES, name)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}" * 2, b"9" * 10_000])
def test_text_of_another_kind(hostile, text):
    refuse(hostile(VALUES, text), VALUES)


def test_callbacks_get_states_only(hostile, made, caplog):
    """No method, nothing that `fit` has set, nothing of Python's."""
    values = json.loads(made[VALUES])
    names = ["on_epoch_end", "model", "_model", "params", "__class__", "__dict__", "set_params"]
    values["callbacks"]["ReduceLROnPlateau"] = {**{key: {"a": 1} for key in names}, "wait": 0}
    with caplog.at_level(logging.WARNING):
        assert train(hostile(VALUES, json.dumps(values).encode())).epoch == [0, 1]
    assert all(f"{name} of ReduceLROnPlateau, which the checkpoint has" in caplog.text for name in names)


# weights.weights.h5


@pytest.mark.parametrize("kind", ["link", "soft link", "elsewhere", "huge", "other shape", "none"])
def test_weights_that_are_none(hostile, made, tmp_path, kind):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["0"] = np.ones([6, 3], "float32")
    file = io.BytesIO(made[WEIGHTS])
    with h5py.File(file, "r+") as weights:
        place = weights["layers/dense/vars"]
        del place["0"]
        if kind == "link":
            place["0"] = h5py.ExternalLink(str(secret), "0")
        elif kind == "soft link":
            place["0"] = h5py.SoftLink("/layers/dense/vars/1")
        elif kind == "elsewhere":
            place.create_dataset("0", [6, 3], "float32", external=[(str(secret), 0, 72)])
        elif kind == "huge":
            place.create_dataset("0", [1 << 30, 1 << 10], "float32", chunks=(1, 1))
        elif kind == "other shape":
            place["0"] = np.ones([2, 2], "float32")
    refuse(hostile(WEIGHTS, file.getvalue()), WEIGHTS)


# The manifest, and what is no file.


def listing(folder: Path, entries: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": entries}))


def entry(content: bytes) -> dict[str, Any]:
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    files = CheckpointFiles(tmp_path / "run", 3)
    files.write(0, 1, {"a": b"a"})
    files.write(0, 2, {"a": b"a"})
    return files


def expect_left_out(files: CheckpointFiles, caplog: Any, said: str) -> None:
    older, newer = "epoch-0000-step-000001", "epoch-0000-step-000002"
    with caplog.at_level(logging.WARNING):
        assert files.newest_whole() == older
    assert f"{newer} is left out: {said}" in caplog.text


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "../epoch-0000-step-000001/a", "", ".", "..", "a/../a"])
def test_names_that_lead_elsewhere(files, caplog, name, tmp_path):
    (tmp_path / "run" / "secret").write_bytes(b"secret")
    listing(files.directory / files.names()[0], {name: entry(b"secret")})
    expect_left_out(files, caplog, f"{MANIFEST} names {name!r}")


@pytest.mark.parametrize(
    "entries",
    [
        *({"a": one} for one in (None, [], {}, {"size_bytes": "x", "sha256": ""}, {"size_bytes": None, "sha256": 1})),
        *(None, 3, [], "a"),
    ],
)
def test_a_manifest_of_another_kind(files, caplog, entries):
    listing(files.directory / files.names()[0], entries)
    expect_left_out(files, caplog, f"{MANIFEST} can't be read")


@pytest.mark.parametrize("text", ["[" * 100_000, "", "null"])
def test_a_manifest_that_is_none(files, caplog, text):
    (files.directory / files.names()[0] / MANIFEST).write_text(text)
    expect_left_out(files, caplog, f"{MANIFEST} can't be read")


@pytest.mark.parametrize("size", [10**18, -1, 10**30])
def test_a_size_that_is_none(files, caplog, size):
    listing(files.directory / files.names()[0], {"a": {**entry(b"a"), "size_bytes": size}})
    expect_left_out(files, caplog, "a has 1 bytes")


@pytest.mark.parametrize("file", ["a", MANIFEST])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path, secret: path.symlink_to(secret), "is a symbolic link"),
        (lambda path, secret: os.mkfifo(path), "is no regular file"),
        (lambda path, secret: path.mkdir(), "is no regular file"),
    ],
)
def test_what_is_no_file(files, caplog, tmp_path, file, make, said):
    """A pipe would be waited for until the job's end."""
    path = files.directory / files.names()[0] / file
    (tmp_path / "secret").write_bytes(path.read_bytes())
    path.unlink()
    make(path, tmp_path / "secret")
    expect_left_out(files, caplog, f"{file} {said}")


def test_a_folder_that_is_elsewhere(files, caplog, tmp_path):
    folder = files.directory / files.names()[0]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    expect_left_out(files, caplog, "it is a symbolic link")
    files.write(0, 3, {"a": b"a"})
    files.write(0, 4, {"a": b"a"})
    files.prepare()
    assert (tmp_path / "elsewhere" / "a").exists(), "what is removed is the link, not what it leads to"


# Configurations


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


TAGS = [
    "!!python/object/apply:os.system ['touch ran']",
    "!!python/object/apply:pathlib.PosixPath [ran]",
    "!!python/object/new:subprocess.Popen [[touch, ran]]",
    "!!python/name:os.system",
    "!!python/module:os",
    '!!python/object/apply:builtins.exec [\'open("ran", "w")\']',
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_makes_no_objects(tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    small = "model: package.module:build\ndata: package.module:data\nloss: mse\n"
    with pytest.raises(ConfigError, match=r"must be YAML. Received: could not determine a constructor"):
        load(config(tmp_path, f"{small}epochs: {tag}\n"))
    with pytest.raises(ConfigError, match="Received"):
        load(config(tmp_path, small), [f"epochs={tag}"])
    assert not (tmp_path / "ran").exists()


def test_aliases_that_stand_for_billions(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match=r"more than 100000 values"):
        load(config(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize("text", ["a: " + "[" * 5000, "a: 2020-13-45", "- a", "a: &a [*a]", "\x00", "a: ${b}\nb: ${a}"])
def test_yaml_that_is_none(tmp_path, text):
    with pytest.raises(ConfigError):
        load(config(tmp_path, text))


# The package


def calls_of(path: Path) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_package_unpickles_nothing():
    unsafe = ("allow_pickle=True", "safe_mode=False", "yaml.load(", "unsafe_load(", "enable_unsafe_deserialization(")
    for path in PACKAGE.rglob("*.py"):
        assert not imports_of(path) & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}, path
        assert not [call for call in calls_of(path) if any(one in call for one in unsafe)], path
