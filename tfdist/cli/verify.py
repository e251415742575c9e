"""Says whether a script trains on several workers as it does on one device, and if not, why.

    tfdist verify train.py
    tfdist verify --workers=4 --steps=50 train.py --epochs=3
    tfdist verify --accumulate=4 train.py

Runs the script, unmodified, on one device and on --workers processes of this machine, all on CPUs, with
the same seeds and the same global batches, and compares losses, metrics and weights at each of the first
--steps optimizer steps. Then the script ends: what stands behind the training is not run, and callbacks
that save or restore files are left out. Random layers such as Dropout are switched off.

Exit code: 0 equal, 1 different, 2 it could not run.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from absl import flags

from tfdist.cli.flags import UsageError, parse
from tfdist.verify import VerifyError, VerifyOptions

USAGE = "tfdist verify [options] script.py [args]"
_OF_SIGNALS = 128  # what a shell adds to the number of the signal that ended a command


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    v = flags.FlagValues()
    flags.DEFINE_integer("workers", 2, "Worker processes of the distributed run.", flag_values=v)
    flags.DEFINE_integer(
        "accumulate", 1, "Micro-batches that the distributed run cuts each global batch into.", flag_values=v
    )
    flags.DEFINE_integer("steps", 20, "Optimizer steps to compare.", flag_values=v)
    flags.DEFINE_boolean("float64", False, "Compare in float64 from the start.", flag_values=v)
    flags.DEFINE_float("timeout_seconds", 1800.0, "How long a single run may take.", flag_values=v)
    flags.DEFINE_string("json", None, "Write the result for machines to this file.", flag_values=v)
    flags.DEFINE_string("keep", None, "Keep recordings and logs of all runs in this directory.", flag_values=v)
    return v


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    rest = parse(values, "verify", argv)
    if not rest:
        raise UsageError("A script must be given. Write for example: tfdist verify --workers=2 train.py")
    try:
        return _verify(_options(values, rest))
    except VerifyError as error:
        raise UsageError(str(error)) from error


def _options(values: flags.FlagValues, rest: list[str]) -> VerifyOptions:
    return VerifyOptions(
        script=rest[0],
        arguments=tuple(rest[1:]),
        workers=values.workers,
        accumulate=values.accumulate,
        steps=values.steps,
        float64=values.float64,
        timeout_seconds=values.timeout_seconds,
        json_path=Path(values.json) if values.json else None,
        keep=Path(values.keep) if values.keep else None,
    )


def _verify(options: VerifyOptions) -> int:
    # Loads NumPy, which the help does without.
    from tfdist.verify.procedure import verify
    from tfdist.verify.progress import Progress
    from tfdist.verify.report import report
    from tfdist.verify.runs import Interrupted

    progress = Progress(sys.stderr)
    progress.say(f"tfdist verify: {options.script}")
    try:
        result = verify(options, progress)
    except Interrupted as interrupted:
        progress.say(f"tfdist verify: ended by {signal.Signals(interrupted.signum).name}")
        return _OF_SIGNALS + interrupted.signum
    print(report(result), flush=True)
    return result.verdict.exit_code
