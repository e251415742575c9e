"""`python -m tfdist.coordination.server [CPUS]`: serves as the task that TF_CONFIG names, until its chief is done."""

from __future__ import annotations

import sys

from tfdist.cluster import resolve
from tfdist.coordination.serving import serve

if __name__ == "__main__":
    sys.exit(serve(resolve(), *map(int, sys.argv[1:])))
