from __future__ import annotations

import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_receive_chunks")


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch):
    found = canary.find("tensorflow.python.eager.context:context")()
    canary.has(found, "_config")
    monkeypatch.setattr(found, "_config", None)
    return found


def test_the_configuration_has_the_field_and_the_context_passes_it_on(context):
    config = canary.find("tensorflow.core.protobuf.config_pb2:ConfigProto")()
    canary.has(config.experimental, "recv_buf_max_chunk")
    canary.module().receive_in_chunks(65536)
    chunk = context.config.experimental.recv_buf_max_chunk
    canary.check(chunk == 65536, f"context.config has recv_buf_max_chunk={chunk} where context._config says 65536")


def test_what_the_user_has_set_stays(context):
    config = canary.find("tensorflow.core.protobuf.config_pb2:ConfigProto")()
    config.experimental.recv_buf_max_chunk = 1234
    config.log_device_placement = True
    context._config = config
    canary.module().receive_in_chunks(65536)
    assert context._config.experimental.recv_buf_max_chunk == 1234
    config.experimental.recv_buf_max_chunk = 0
    canary.module().receive_in_chunks(65536)
    assert context._config.experimental.recv_buf_max_chunk == 65536
    assert context._config.log_device_placement
