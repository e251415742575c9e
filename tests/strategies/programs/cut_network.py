"""A chief whose second worker is behind a cable that is pulled while it trains.

ip netns exec HERE python -m tests.strategies.programs.cut_network FOLDER THERE CABLE HERE_ADDRESS THERE_ADDRESS

HERE and THERE are network namespaces, CABLE is HERE's end of what joins them. The second worker runs in THERE.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import tfdist
from tests.helpers.seen import seen
from tests.helpers.warm_processes import QUIET
from tests.strategies.programs.parameter_server_faults import STEPS, At, data, make_model, steps_of
from tfdist.cluster import Cluster, Task

PATIENCE_SECONDS = 4.0
#: Of a cut that nobody need notice.
SHORT = 2.0
DEADLINE_SECONDS = 60.0
AT = 30
PORT = 2222


class Cable:
    """Joins the two namespaces."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._timer = threading.Timer(SHORT, self.plug)

    def _set(self, state: str) -> None:
        subprocess.run(["ip", "link", "set", self._name, state], check=True)

    def pull(self, seconds: float | None) -> None:
        """For so long, or until it's plugged in again."""
        self._set("down")
        if seconds is not None:
            self._timer = threading.Timer(seconds, self.plug)
            self._timer.start()

    def plug(self) -> None:
        self._set("up")

    def wait(self) -> None:
        self._timer.join()


def start(cluster: Cluster, task: Task, folder: Path, namespace: str | None) -> None:
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    env = {**os.environ, **QUIET, "TF_CONFIG": cluster.at(task).to_tf_config()}
    with (folder / f"{task.type}-{task.index}.log").open("wb") as log:
        command = [*prefix, sys.executable, "-m", "tfdist.coordination.server"]
        subprocess.Popen(command, env=env, stdout=log, stderr=log)


def main(folder: Path, there: str, cable: Cable, addresses: list[str]) -> None:
    here, other = addresses
    jobs = {
        "chief": [f"{here}:{PORT}"],
        "worker": [f"{here}:{PORT + 1}", f"{other}:{PORT}"],
        "ps": [f"{here}:{PORT + 2}"],
    }
    cluster = Cluster(jobs, Task("chief", 0))
    for task in cluster.peers:
        start(cluster, task, folder, there if task == Task("worker", 1) else None)
    strategy = tfdist.ParameterServerStrategy(cluster, patience_seconds=PATIENCE_SECONDS)
    model = make_model(strategy)
    results: dict[str, Any] = {}

    def note(name: str, **more: Any) -> None:
        results[name] = {"counts": dict(seen), **more}
        print(name, more, flush=True)
        (folder / "results.pickle").write_bytes(pickle.dumps(results))

    def fit(name: str, how: str, *callbacks: At) -> int:
        before, made, begun = int(model.optimizer.iterations), steps_of(folder, 1), time.monotonic()
        model.fit(data(folder, how), callbacks=list(callbacks), verbose=0)
        seconds = time.monotonic() - ((callbacks[0].at if callbacks else None) or begun)
        applied, there = int(model.optimizer.iterations) - before, steps_of(folder, 1) - made
        note(name, applied=applied, reported=strategy.reported_steps, seconds=seconds, there=there)
        return there

    def evaluate(name: str) -> None:
        begun = time.monotonic()
        values = model.evaluate(data(folder, "feed"), verbose=0)
        note(name, values=values, seconds=time.monotonic() - begun)

    def return_of_the_worker(name: str, steps: int) -> float:
        begun = time.monotonic()
        while fit(name, "feed") < steps and time.monotonic() - begun < DEADLINE_SECONDS:
            time.sleep(0.5)
        return time.monotonic() - begun

    fit("uncut", "feed")
    fit("short", "feed", At(AT, lambda: cable.pull(SHORT)))
    cable.wait()
    # What a worker that is cut off can't be told: functions that are made now.
    fit("long", "records", At(AT, lambda: cable.pull(None)))
    evaluate("evaluate while cut")
    cable.plug()
    note("return", seconds=return_of_the_worker("returned", 1))
    evaluate("evaluate after")
    # It may have begun anew, which the next cut had better not meet in the middle of.
    return_of_the_worker("ready", STEPS // 10)
    fit("cut at the end", "feed", At(AT, lambda: cable.pull(None)))
    (folder / "ended").write_text(str(time.monotonic()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Cable(sys.argv[3]), sys.argv[4:])
