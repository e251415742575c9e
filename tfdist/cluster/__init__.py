"""Which tasks a job has, where they listen, and which of them this process is.

Plain Python: nothing here imports TensorFlow.
"""

from __future__ import annotations

from tfdist.cluster.address import Address
from tfdist.cluster.local import local
from tfdist.cluster.resolvers import Resolver, register, resolve
from tfdist.cluster.spec import Cluster
from tfdist.cluster.task import TASK_TYPES, Task
from tfdist.errors import ClusterError

__all__ = [
    "TASK_TYPES",
    "Address",
    "Cluster",
    "ClusterError",
    "Resolver",
    "Task",
    "local",
    "register",
    "resolve",
]
