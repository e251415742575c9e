"""What processes that share a mesh do together with the values of a model: gather them for a file, and compare them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from tensorflow.experimental import dtensor

from tfdist._compat.tensorflow_dtensor_variables import MeshVariable, as_kept
from tfdist.errors import WorkersDisagreeError
from tfdist.gradients.averaging import fingerprint
from tfdist.parallel.meshes import is_whole_here
from tfdist.parallel.transfer import parts_of


@contextlib.contextmanager
def held_on_host(strategy: Any, model: Any, path: str) -> Iterator[None]:
    """The chief has all values of a model on its host in here, as far as it hasn't them on its own devices.

    Args:
        strategy: a HybridParallelStrategy.
        model: that is about to be saved.
        path: where.

    Raises:
        WorkersDisagreeError: another worker doesn't save it.
    """
    split = [one for one in _mesh_variables(model) if not is_whole_here(one.layout)]
    if split:
        # Else the chief's file is its own affair.
        strategy.agree(f"the saving of {path}", {"variables with parts on other workers": str(len(split))})
    try:
        with strategy.peers.explained():
            for variable in split:
                value = variable.numpy()
                if strategy.is_chief:
                    variable.held = value
        yield
    finally:
        for variable in split:
            variable.held = None


def check_equal_parts(strategy: Any, model: Any) -> None:
    """Compare the parts of variables that several workers have; on every worker.

    Raises:
        WorkersDisagreeError: workers differ; names the first variable that does.
    """
    own: dict[str, str] = {}
    variables = _mesh_variables(model)
    with as_kept():
        for index, variable in enumerate(variables):
            parts = parts_of(variable.layout, variable.shape.as_list())
            for part, component in zip(parts, dtensor.unpack(variable.read_value()), strict=True):
                place = ",".join(f"{one.start}:{one.stop}" for one in part)
                own[f"{index} [{place}]"] = f"{int(fingerprint(component)) % 2**64:016x}"
    stated = [json.loads(one) for one in strategy.gather_bytes(json.dumps(own).encode())]
    for name in own:
        values = {worker: facts[name] for worker, facts in enumerate(stated) if name in facts}
        if len(set(values.values())) > 1:
            number, _, place = name.partition(" ")
            found = ", ".join(f"worker {worker} has fingerprint {value}" for worker, value in values.items())
            raise WorkersDisagreeError(
                f"Workers do not agree on the weights {variables[int(number)].name!r}, part {place}, at fit. Expected: "
                f"the same on every worker. Received: {found}. Set the same seeds on every task, or load the same "
                "weights."
            )


def _mesh_variables(model: Any) -> list[MeshVariable]:
    """Of a model and its optimizer, each once, in the same order on all workers."""
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer is not None else [])]
    values = {id(one.value): one.value for one in variables}
    return [one for one in values.values() if isinstance(one, MeshVariable)]
