from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.experimental import dtensor

from tests.compat.canary import Canary
from tfdist.parallel.transfer import to_host, to_mesh

pytestmark = pytest.mark.unit
canary = Canary("tensorflow_dtensor_variables")
DVARIABLE = "tensorflow.dtensor.python.d_variable:DVariable"


@pytest.fixture(scope="module")
def layout():
    """A mesh of this process' one CPU."""
    return dtensor.Layout([dtensor.UNSHARDED], dtensor.create_mesh([("batch", 1)], devices=["CPU:0"]))


@pytest.fixture
def variable(layout):
    canary.find(DVARIABLE)
    value = to_mesh([1.0, 2.0], layout)
    return canary.module().MeshVariable(value, used=layout, to_mesh=to_mesh, to_host=to_host)


def test_upstream_has_no_numpy(layout):
    upstream = canary.find(DVARIABLE)(to_mesh([1.0, 2.0], layout))
    with pytest.raises(Exception, match=r".*"):
        upstream.assign(np.ones(2, "float32"))
        upstream.numpy()
        canary.check(False, "a DVariable takes arrays and gives arrays: those parts of the shim can go")


def test_it_takes_and_gives_arrays(variable):
    variable.assign(np.asarray([3.0, 4.0]))
    variable.assign_add([1.0, 1.0])
    variable.assign_sub(tf.constant([0.0, 1.0]))
    assert np.asarray(variable).tolist() == [4.0, 4.0]


def test_scatters_add_up_rows_of_the_same_index(variable):
    variable.scatter_add(tf.IndexedSlices(tf.constant([1.0, 1.0]), tf.constant([1, 1])))
    variable.scatter_sub(tf.IndexedSlices(tf.constant([0.5]), tf.constant([0])))
    assert variable.numpy().tolist() == [0.5, 4.0]


@pytest.mark.parametrize("name", ["value", "read_value", "_read_variable_op", "_dense_var_to_tensor", "assign_add"])
def test_upstream_reads_by_the_overridden_methods(name):
    canary.find(f"{DVARIABLE}.{name}")


def test_conversions_read_by_value(variable, monkeypatch):
    read = []
    monkeypatch.setattr(type(variable), "_as_asked", lambda self, value: read.append(value) or value)
    tf.convert_to_tensor(variable)
    canary.check(read, "a variable is converted to a tensor by another way than value()")
