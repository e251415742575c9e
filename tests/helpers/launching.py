"""`tfdist launch` as a person runs it."""

from __future__ import annotations

import subprocess

#: What every script begins with.
HEAD = """
import json, os, signal, subprocess, sys, time
config = json.loads(os.environ["TF_CONFIG"])
kind, index = config["task"]["type"], config["task"]["index"]
def meet(n):
    "Waits until n tasks are here."
    open(f"here-{kind}-{index}", "w").close()
    while len([f for f in os.listdir() if f.startswith("here-")]) < n: time.sleep(0.01)
"""


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
