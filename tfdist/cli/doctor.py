"""Looks at this machine and at TF_CONFIG, and says what is wrong and how to repair it.

    tfdist doctor
    TF_CONFIG='{...}' tfdist doctor --timeout_seconds=5

It shows versions, devices, cores and memory, TF_CONFIG as tfdist understands it, whether this
task's own port is free, and whether each peer answers. Exits with 1 if anything is wrong.
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.flags import UsageError, parse
from tfdist.cluster.checks.all import check_all
from tfdist.cluster.checks.finding import Finding

USAGE = "tfdist doctor [options]"


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    values = flags.FlagValues()
    flags.DEFINE_float(
        "timeout_seconds",
        3.0,
        "How long to wait for a peer to answer.",
        lower_bound=0.001,
        flag_values=values,
    )
    return values


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    rest = parse(values, "doctor", argv)
    if rest:
        raise UsageError(f"tfdist doctor takes no arguments. Received: {rest[0]!r}.")
    problems = sum(_show(finding) for finding in check_all(values.timeout_seconds))
    print(f"\n{problems} problem(s)." if problems else "\nAll is well.")
    return 1 if problems else 0


def _show(finding: Finding) -> bool:
    mark = "!!" if finding.is_problem else "ok"
    print(f"{mark}  {finding.subject:<14} {finding.said}", flush=True)
    if finding.fix:
        print(f"    {'fix:':<14} {finding.fix}", flush=True)
    return finding.is_problem
