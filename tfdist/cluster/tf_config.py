"""TF_CONFIG, the JSON text in which TensorFlow describes a cluster: read and written.

    {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0},
     "rpc_layer": "grpc"}

Keys that other systems add beside these ("environment", "job") are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfdist.cluster.task import Task
from tfdist.errors import ClusterError

VARIABLE = "TF_CONFIG"

_EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


def parse(value: str | bytes | Mapping[str, Any]) -> tuple[Mapping[str, Any], Task, str]:
    """Returns the (unchecked) jobs, the task and the protocol.

    Raises:
        ClusterError: If the text is no JSON, or the task is missing or malformed.
    """
    config = _load(value)
    jobs = config.get("cluster") or {}
    task = config.get("task")
    if not jobs and not task:
        return {}, Task("worker", 0), _rpc_layer(config)
    if not task:
        raise ClusterError(
            f"{VARIABLE} must say which task this process is. Received: task={task!r}. "
            f'Add "task": {{"type": "worker", "index": 0}}, with an index of its own per process.'
        )
    return jobs, _task(task), _rpc_layer(config)


def format(jobs: Mapping[str, Any], task: Task, rpc_layer: str) -> str:
    """Returns the JSON text; `rpc_layer` only where it's not the default."""
    config: dict[str, Any] = {
        "cluster": {job: list(addresses) for job, addresses in jobs.items()},
        "task": {"type": task.type, "index": task.index},
    }
    if rpc_layer != "grpc":
        config["rpc_layer"] = rpc_layer
    return json.dumps(config)


def _load(value: object) -> Mapping[str, Any]:
    config = _decode(value) if isinstance(value, (str, bytes)) else value
    if not isinstance(config, Mapping):
        raise ClusterError(
            f"{VARIABLE} must be a JSON object. Received: {VARIABLE}={value!r}. Write for example {_EXAMPLE}"
        )
    return config


def _decode(text: str | bytes) -> Any:
    if not text.strip():
        return {}
    try:
        return json.loads(text)
    except ValueError as error:
        raise ClusterError(
            f"{VARIABLE} must be JSON ({error}). Received: {VARIABLE}={text!r}.{_quotes(text)} "
            f"Write for example {_EXAMPLE}"
        ) from error


def _quotes(text: str | bytes) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    if "'" in shown and '"' not in shown:
        return " JSON takes double quotes, not single ones."
    return ""


def _task(task: object) -> Task:
    if not isinstance(task, Mapping):
        raise ClusterError(
            f"The task must be an object with 'type' and 'index'. Received: task={task!r}. "
            f'Write {{"type": "worker", "index": 0}}.'
        )
    for key in ("type", "index"):
        if key not in task:
            raise ClusterError(
                f"The task must have 'type' and 'index'. Received: task={dict(task)!r} "
                f'without {key!r}. Write {{"type": "worker", "index": 0}}.'
            )
    return Task(task["type"], _index(task["index"]))


def _index(index: Any) -> Any:
    # Some schedulers fill TF_CONFIG from environment variables, so that the number is text.
    return int(index) if isinstance(index, str) and index.isascii() and index.isdigit() else index


def _rpc_layer(config: Mapping[str, Any]) -> str:
    given = config.get("rpc_layer")
    return "grpc" if given is None else given
