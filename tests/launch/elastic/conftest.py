from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.conftest import launch

__all__ = ["launch"]

#: A job that counts its steps in a file. It notes each start, saves when it's told to, and is done when a test says so.
COUNT = """
world, host = len(config["cluster"]["worker"]), os.environ["TFDIST_HOST"]
def note(name, text):
    with open(name, "a") as file: file.write(text + "\\n")
def starts_on(name):
    return sum(line.split()[2] == name for line in open("seen"))
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
note("seen", f"{world} {index} {host}")
def count():
    while not os.path.exists("finish"):
        if index == 0:
            step = int(open("state").read()) + 1 if os.path.exists("state") else 0
            note("record", f"{step} {world}")
            with open("state.new", "w") as file: file.write(str(step))
            os.replace("state.new", "state")
        if told: sys.exit(75)
        time.sleep(0.02)
"""


class Job:
    """An elastic job that runs, and what it left behind.

    Args:
        folder: Where it runs.
        start: The `launch` fixture.
        wait_until: The fixture.
    """

    def __init__(self, folder: Path, start, wait_until) -> None:
        self.folder, self._start, self._wait_until = folder, start, wait_until
        self.process = None

    def hosts(self, *lines: str) -> None:
        """Writes the list of hosts, at once."""
        new = self.folder / "hosts.new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self.folder / "hosts")

    def launch(self, *options: str, fault: str = "", **popen) -> None:
        """Starts it, with short times; later options win."""
        quick = ["--discovery_seconds=0.2", "--settle_seconds=0.3", "--elastic_timeout=50", "--hosts_file=hosts"]
        if any(option.startswith("--host_discovery") for option in options):
            quick.pop()
        bounds = ["--min_workers=1", "--max_workers=4"]
        # Each line of the fault is at the level of the script.
        body = f"{COUNT}\n{fault}\ncount()\n"
        self.process = self._start(*quick, *bounds, *options, body=body, **popen)

    def seen(self) -> list[tuple[str, ...]]:
        """The hosts of each attempt whose workers have all begun, in the order of the workers."""
        path = self.folder / "seen"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        attempts: list[tuple[str, ...]] = []
        while lines:
            world = int(lines[0][0])
            mine, lines = lines[:world], lines[world:]
            if len(mine) == world:
                attempts.append(tuple(name for _, _, name in sorted(mine, key=lambda line: int(line[1]))))
        return attempts

    def wait_for(self, *hosts: str, attempts: int) -> None:
        """Until so many attempts have begun, the last of them on these hosts."""
        self._wait_until(lambda: len(self.seen()) >= attempts or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()
        assert self.seen()[attempts - 1 :] == [hosts]

    def wait_for_steps(self, count: int) -> None:
        """Until it has made so many more."""
        before = len(self.record())
        self._wait_until(lambda: len(self.record()) >= before + count)

    def finish(self) -> str:
        """Lets it end; returns what the launcher said."""
        (self.folder / "finish").touch()
        code, err = self.end()
        assert code == 0, err
        return err

    def end(self) -> tuple[int, str]:
        """Exit code, and what the launcher said."""
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err

    def record(self) -> list[tuple[int, int]]:
        """Step and number of workers, in the order in which steps were made."""
        path = self.folder / "record"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(step), int(world)) for step, world in map(str.split, lines)]

    def expect_every_step_once(self) -> None:
        assert [step for step, _ in self.record()] == list(range(len(self.record())))


@pytest.fixture
def job(launch, tmp_path, wait_until) -> Job:
    return Job(tmp_path, launch, wait_until)
