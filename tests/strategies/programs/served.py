"""What a model with several devices has exported runs in a process that has one.
Run as a program: `python -m tests.strategies.programs.served FOLDER`, which holds "served" and "served.npz".
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main() -> None:
    folder = Path(sys.argv[1])
    assert len(tf.config.list_logical_devices()) == 1
    with np.load(folder / "served.npz") as arrays:
        found = tf.saved_model.load(str(folder / "served")).serve(arrays["rows"])
        np.testing.assert_allclose(found, arrays["expected"], rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
    main()
