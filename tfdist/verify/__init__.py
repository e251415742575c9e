"""Does a script train on several workers as it does on one device? `tfdist verify` runs it both ways and compares.

The user's own script runs unmodified, in child processes: plain Keras on one device, and under a strategy that spans
the workers. Every step of every `fit` and `train_on_batch` is recorded (logs, weights, the rows that each replica
really trained on), the recordings are compared step by step, and a difference is traced to its cause.

    cli -> options -> procedure -> runs -> child (a process that runs the script) -> recording
                          |-> comparison, tolerance        are they equal?
                          |-> diagnosis                    why not?
                          |-> result -> report, JSON

Order of runs, see `procedure`; rounding or error, see `tolerance`:

1. Within float32's tolerance at every step, runs are equal.
2. Beyond it, a difference is an error at once if the rows differ, or if most variables are off by more than 1% of
   their move in the step in which they first differ.
3. All else is decided in float64: rounding shrinks by 2^29 = 5e8, an error does not. A difference that is within 1e-5
   there was rounding.
4. Where the script does not run in float64, differences that begin below a tenth of what is allowed and grow less
   than tenfold a step are rounding.
"""

from __future__ import annotations

from tfdist.verify.options import VerifyError, VerifyOptions

__all__ = ["VerifyError", "VerifyOptions"]
