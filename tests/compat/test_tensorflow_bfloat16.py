from __future__ import annotations

import inspect

import pytest

from tests.compat.canary import Canary

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_bfloat16")


def test_strategies_look_the_functions_up_in_their_module():
    module = canary.find("tensorflow.python.distribute.collective_all_reduce_strategy:collective_ops")
    shim = canary.module()
    canary.check(module is shim.collective_ops, "the strategy imports the broadcast from another module")
    for name, kept in (("broadcast_send", shim._send), ("broadcast_recv", shim._receive)):
        parameters = list(inspect.signature(kept).parameters)
        leading = ["t", "shape", "dtype"] if name == "broadcast_send" else ["shape", "dtype"]
        canary.check(parameters[: len(leading)] == leading, f"{name} has the parameters {parameters}")


#: DT_BFLOAT16 in TensorFlow's types.proto.
BFLOAT16 = 14


def test_the_broadcast_still_has_no_bfloat16():
    """When it has, the shim can go."""
    definition = canary.find("tensorflow.python.framework.op_def_registry:get")("CollectiveBcastSend")
    (types,) = [attr.allowed_values.list.type for attr in definition.attr if attr.name == "T"]
    canary.check(BFLOAT16 not in types, "CollectiveBcastSend takes bfloat16, so the shim can go")
