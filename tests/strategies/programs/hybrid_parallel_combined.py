"""`python -m tests.strategies.programs.hybrid_parallel_combined OUTPUT.json`: if the strategy left DTensor's pass on.

The same cell as `mlp-data_tensor-adam` of tests/strategies/programs/hybrid_parallel.py.
"""

from __future__ import annotations

import os
import sys

from tests.strategies.programs import hybrid_parallel
from tfdist._compat.tensorflow_dtensor import COMBINE_SWITCH
from tfdist.strategies import hybrid_parallel as strategy

if __name__ == "__main__":
    strategy.switch_off_combining = lambda: None
    assert COMBINE_SWITCH not in os.environ
    hybrid_parallel.main(sys.argv[1], "mlp-data_tensor-adam")
