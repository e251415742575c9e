"""How large the pieces are in which TensorFlow's workers receive each other's tensors.

Upstream: the answer to RecvBuf carries a tensor as protobuf strings of 4 KB each, copied one by one on both sides,
unless `ConfigProto.experimental.recv_buf_max_chunk` says otherwise, for which strategies have no argument.
Here: the process's configuration says it, before its server is started. Seen in TensorFlow 2.21. Can go when strategies
take it, or the answer isn't cut.
"""

from __future__ import annotations

from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context


def receive_in_chunks(size_bytes: int) -> None:
    """Have tensors received in pieces of this size; without effect once TensorFlow has started, or on a user's own."""
    current = context.context()._config
    config = config_pb2.ConfigProto()
    if current is not None:
        config.CopyFrom(current)
    if config.experimental.recv_buf_max_chunk == 0:
        config.experimental.recv_buf_max_chunk = size_bytes
        context.context()._config = config
