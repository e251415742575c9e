"""TF_CONFIG, as tfdist understands it."""

from __future__ import annotations

from tfdist.cluster.checks.finding import Finding
from tfdist.cluster.resolvers import resolve
from tfdist.cluster.spec import Cluster
from tfdist.errors import ClusterError


def check_task() -> tuple[Cluster | None, list[Finding]]:
    """Returns the cluster, or None when its description is wrong, and what there is to say."""
    try:
        cluster = resolve()
    except ClusterError as error:
        fix = "Correct TF_CONFIG as it says, or unset it to run on this machine alone."
        return None, [Finding("TF_CONFIG", str(error), fix)]
    if cluster.is_local:
        return cluster, [Finding("TF_CONFIG", "not set: one local task")]
    findings = [Finding("TF_CONFIG", f"{cluster}; protocol {cluster.rpc_layer}")]
    if cluster.is_chief:
        findings.append(Finding("chief", "this task saves and logs for all"))
    return cluster, findings
