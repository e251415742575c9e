from __future__ import annotations

import logging

import pytest

from tfdist.cluster import Cluster, ClusterError, Task, register, resolve
from tfdist.cluster.resolvers import RESOLVERS

pytestmark = pytest.mark.unit

TWO = Cluster({"worker": ["a:1", "b:1"]}, Task("worker", 1))


def test_tf_config_is_taken_and_logged(monkeypatch, caplog):
    monkeypatch.setenv("TF_CONFIG", TWO.to_tf_config())
    with caplog.at_level(logging.INFO, "tfdist"):
        assert resolve() == TWO
    assert "2 worker; this is worker/1 at b:1 (from TF_CONFIG)" in caplog.text


@pytest.mark.parametrize("text", [None, "", "  "])
def test_without_tf_config_it_is_one_local_task(monkeypatch, caplog, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with caplog.at_level(logging.INFO, "tfdist"):
        assert resolve() == Cluster()
    assert "one local task" in caplog.text


def test_a_wrong_tf_config_is_an_error_and_not_one_local_task(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}}')
    with pytest.raises(ClusterError, match="task=None"):
        resolve()


def test_a_registered_resolver_is_asked_first(monkeypatch):
    class Silent:
        name = "says nothing"

        def resolve(self) -> None:
            return None

    class Scheduler:
        name = "a scheduler"

        def resolve(self) -> Cluster:
            return TWO

    monkeypatch.setattr("tfdist.cluster.resolvers.RESOLVERS", list(RESOLVERS))
    monkeypatch.delenv("TF_CONFIG", raising=False)
    register(Scheduler())
    register(Silent())
    assert resolve() == TWO
