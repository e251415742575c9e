"""Two worker processes train a small CNN on handwritten digits; one device checks them.

    python examples/demo.py [--output=demo-output]

The same as by hand: `tfdist launch --workers=2 examples/demo_task.py demo-output`, then
`python examples/demo_task.py demo-output --one_device`, then comparing the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from tfdist.launch import LaunchOptions, run, script_command

TASK = str(Path(__file__).with_name("demo_task.py"))
WORKERS = 2
MIN_ACCURACY = 0.95
# Rounding in float64 over 276 steps of Adam.
MAX_WEIGHT_DIFFERENCE = 1e-10


def largest_difference(folder: Path, one: str, other: str) -> float:
    """Between the weights of two processes, over all weights."""
    with np.load(folder / f"{one}.npz") as a, np.load(folder / f"{other}.npz") as b:
        return max(float(np.max(np.abs(a[name] - b[name]))) for name in a.files)


def report(folder: Path) -> bool:
    """Prints what came out; returns whether it's as promised."""
    chief, alone = (json.loads((folder / f"{n}.json").read_text()) for n in ("worker-0", "one_device"))
    to_one_device = largest_difference(folder, "worker-0", "one_device")
    between = largest_difference(folder, "worker-0", "worker-1")
    print(f"held-out accuracy          {chief['accuracy']:.4f}  (at least {MIN_ACCURACY})")
    print(f"  of the reloaded model    {alone['reloaded_accuracy']:.4f}")
    print(f"largest weight difference  {to_one_device:.1e} to one device, {between:.1e} between workers")
    print(f"examples/s                 {alone['examples_per_second']:,.0f} with 1 worker, "
          f"{chief['examples_per_second']:,.0f} with {WORKERS}")  # fmt: skip
    print(f"saved model                {folder / 'model.keras'}")
    return (
        chief["accuracy"] >= MIN_ACCURACY
        and alone["reloaded_accuracy"] == chief["accuracy"]
        and to_one_device <= MAX_WEIGHT_DIFFERENCE
        and between == 0.0
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    print(f"{WORKERS} workers:", flush=True)
    code = run(script_command(TASK, [str(folder)]), LaunchOptions(workers=WORKERS))
    if code:
        return code
    print("\none device, the same global batches:", flush=True)
    code = run(script_command(TASK, [str(folder), "--one_device"]), LaunchOptions(workers=1))
    if code:
        return code
    print()
    if report(folder):
        return 0
    print("This is not what was expected.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
