"""What makes a cluster description valid. Each check names the field, the value and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfdist.cluster.address import Address
from tfdist.cluster.task import Task, check_job_name
from tfdist.errors import ClusterError

Jobs = Mapping[str, Sequence[str]]


def normalise_jobs(jobs: object) -> dict[str, tuple[str, ...]]:
    """Returns the jobs as tuples of addresses, without the empty ones.

    Raises:
        ClusterError: If it's no mapping of job names to lists of addresses.
    """
    if not isinstance(jobs, Mapping):
        raise ClusterError(
            f"The cluster must map each job to its addresses. Received: cluster={jobs!r}. "
            f"Write for example {{'worker': ['10.0.0.1:2222', '10.0.0.2:2222']}}."
        )
    return {name: addresses for name, given in jobs.items() if (addresses := _addresses_of(name, given))}


def _addresses_of(job: object, given: object) -> tuple[str, ...]:
    check_job_name(job, "cluster job")
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ClusterError(
            f"A job's addresses must be a list of 'host:port'. "
            f"Received: cluster[{job!r}]={given!r}. Write for example ['10.0.0.1:2222']."
        )
    return tuple(str(Address.parse(text, f"cluster[{job!r}][{index}]")) for index, text in enumerate(given))


def check_cluster(jobs: Jobs, task: object, rpc_layer: object) -> None:
    """Raises ClusterError if jobs, task and protocol don't fit together."""
    if not isinstance(task, Task):
        raise ClusterError(f"The task must be a Task. Received: task={task!r}. Write Task('worker', 0).")
    if not isinstance(rpc_layer, str) or not rpc_layer:
        raise ClusterError(f"The protocol must be a name. Received: rpc_layer={rpc_layer!r}. Write 'grpc'.")
    if not jobs:
        _check_local_task(task)
        return
    _check_duplicates(jobs)
    _check_single(jobs)
    _check_evaluator(jobs, task)
    _check_someone_trains(jobs, task)
    _check_task_is_listed(jobs, task)


def _check_local_task(task: Task) -> None:
    if task.type == "ps" or task.index != 0:
        raise ClusterError(
            f"A task without a cluster must be the only one. Received: task={task}, cluster={{}}. "
            f"List all tasks' addresses in 'cluster', or drop the task."
        )


def _check_duplicates(jobs: Jobs) -> None:
    owner: dict[str, str] = {}
    for job, addresses in jobs.items():
        for index, address in enumerate(addresses):
            here = f"cluster[{job!r}][{index}]"
            if address in owner:
                raise ClusterError(
                    f"Each task must have an address of its own. "
                    f"Received: {owner[address]}={here}={address!r}. Change one of the two ports."
                )
            owner[address] = here


def _check_single(jobs: Jobs) -> None:
    for job in ("chief", "evaluator"):
        if len(jobs.get(job, ())) > 1:
            raise ClusterError(
                f"A cluster has at most one {job}. "
                f"Received: cluster[{job!r}]={list(jobs[job])!r}. "
                f"Keep one; list the others as 'worker'."
            )


def _check_evaluator(jobs: Jobs, task: Task) -> None:
    if "evaluator" in jobs and task.type != "evaluator":
        raise ClusterError(
            f"An evaluator is not part of the cluster that training tasks see; they would wait "
            f"for it. Received: cluster['evaluator']={list(jobs['evaluator'])!r} in the cluster "
            f"of task={task}. Remove 'evaluator' from the cluster of every chief, worker and ps."
        )


def _check_someone_trains(jobs: Jobs, task: Task) -> None:
    if task.type != "evaluator" and not ("chief" in jobs or "worker" in jobs):
        raise ClusterError(
            f"A cluster must have a chief or a worker. Received: cluster jobs={sorted(jobs)}. "
            f"Add for example 'worker': ['10.0.0.1:2222']."
        )


def _check_task_is_listed(jobs: Jobs, task: Task) -> None:
    count = len(jobs.get(task.type, ()))
    if task.type == "evaluator" and count == 0:
        count = 1  # documented by TensorFlow: an evaluator may be absent from the cluster
    elif count == 0:
        raise ClusterError(
            f"The task must be in the cluster. Received: task.type={task.type!r}, cluster jobs="
            f"{sorted(jobs)}. Add cluster[{task.type!r}] with its addresses, or correct task.type."
        )
    if task.index >= count:
        raise ClusterError(
            f"A task's index must be less than the number of its job's addresses, {count}. "
            f"Received: task.index={task.index} for task.type={task.type!r}. "
            f"Use an index from 0 to {count - 1}, or add the address that is missing from "
            f"cluster[{task.type!r}]."
        )
