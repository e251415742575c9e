from __future__ import annotations

import json
import socket

import pytest

from tfdist.cli.main import main
from tfdist.cluster import Cluster, Task
from tfdist.cluster.address import Address
from tfdist.cluster.checks import network, tensorflow, versions

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("TF_CONFIG", "KERAS_BACKEND", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def quick(monkeypatch):
    """TensorFlow is asked once, in the test that is about it."""
    monkeypatch.setattr("tfdist.cluster.checks.all.check_tensorflow", lambda: iter(()))


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def doctor(capsys, *argv):
    code = main(["doctor", *argv])
    return code, capsys.readouterr().out


def test_all_is_well_here(capsys):
    code, said = doctor(capsys)
    assert code == 0, said
    assert "All is well." in said
    for subject in ("python", "tfdist", "tensorflow", "keras", "numpy", "cores", "memory", "devices", "TF_CONFIG"):
        assert f"ok  {subject}" in said
    assert "CPU:0" in said


def test_peers_and_the_own_port(capsys, quick, monkeypatch, listener, free_port):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        own = held.getsockname()[1]
    jobs = {"worker": [f"127.0.0.1:{own}", f"127.0.0.1:{listener}"]}
    monkeypatch.setenv("TF_CONFIG", Cluster(jobs, Task("worker", 0)).to_tf_config())
    code, said = doctor(capsys)
    assert code == 0, said
    assert f"port {own}" in said
    assert f"peer worker/1  127.0.0.1:{listener} answers" in said


def test_each_problem_has_a_fix_and_the_exit_code_is_1(capsys, quick, monkeypatch, listener, free_port):
    jobs = {"worker": [f"127.0.0.1:{listener}", f"127.0.0.1:{free_port}", "host.invalid:1"]}
    monkeypatch.setenv("TF_CONFIG", Cluster(jobs, Task("worker", 0)).to_tf_config())
    code, said = doctor(capsys)
    assert code == 1
    assert "3 problem(s)" in said
    assert said.count("fix:") == 3
    assert "taken, though this task is to listen" in said
    assert f"nothing listens on port {free_port}" in said
    assert "the host of host.invalid:1 is not known" in said


def test_an_address_of_another_machine(listener):
    found = network.check_own(Address("192.0.2.1", 4444))  # reserved for documentation
    assert found.is_problem
    assert "not an address of this machine" in found.said


def test_a_peer_that_does_not_answer_in_time(monkeypatch):
    """A listener whose queue is full doesn't answer; what fills it is closed with it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = Address("127.0.0.1", server.getsockname()[1])
        with socket.create_connection((address.host, address.port), 10):
            found = network.check_peer("worker/1", address, 0.2)
    assert found.is_problem
    assert "did not answer within 0.2 s" in found.said


def test_a_wrong_tf_config(capsys, quick, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{'cluster': 1}")
    code, said = doctor(capsys)
    assert code == 1
    assert "!!  TF_CONFIG" in said
    assert "double quotes" in said


@pytest.mark.parametrize("where", ["variable", "file"])
def test_another_keras_backend(monkeypatch, tmp_path, where):
    if where == "variable":
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    else:
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    monkeypatch.setattr(tensorflow, "_SCRIPT", "")
    first = next(tensorflow.check_tensorflow())
    assert first.said.startswith("jax (from ")
    assert first.fix == "export KERAS_BACKEND=tensorflow"


@pytest.mark.parametrize(
    "script, said",
    [
        ("import no_such_tensorflow", "No module named 'no_such_tensorflow'"),
        ("import os; os.abort()", "exit code -6"),
        ("import signal; signal.pause()", "takes more than"),
    ],
)
def test_a_tensorflow_that_does_not_start(monkeypatch, script, said):
    monkeypatch.setattr(tensorflow, "_SCRIPT", script)
    monkeypatch.setattr(tensorflow, "_SECONDS", 1.0 if "pause" in script else 60.0)
    *_, last = tensorflow.check_tensorflow()
    assert last.is_problem
    assert said in last.said


@pytest.mark.parametrize(
    "installed, subject, said",
    [
        ({"tensorflow": "2.15.1", "keras": "3.15.1"}, "tensorflow", "Keras 2"),
        ({"tensorflow": "2.21.0", "keras": "2.15.0"}, "tensorflow", "tf.keras is Keras 3"),
        ({"tensorflow": "2.17.0", "numpy": "2.1.0"}, "tensorflow", "NumPy 1"),
        ({"tensorflow": "2.21.0", "tf-keras": "2.20.1"}, "tensorflow", "tf_keras"),
        ({"tensorflow": "2.21.0"}, "keras", "not installed"),
        ({"keras": "3.99.0"}, "keras", "not tested"),
    ],
)
def test_versions_that_do_not_work(monkeypatch, installed, subject, said):
    monkeypatch.setattr(versions, "_installed", {"tfdist": "0.1.0", **installed}.get)
    found = [f for f in versions.check_versions() if f.is_problem and f.subject == subject]
    assert any(said in f.said for f in found), found
    assert all("pip install" in f.fix for f in found)


def test_a_pre_release_counts_as_its_release(monkeypatch):
    monkeypatch.setattr(versions, "_installed", {"tensorflow": "2.21.1rc0"}.get)
    assert not [f for f in versions.check_versions() if f.is_problem and f.subject == "tensorflow"]
