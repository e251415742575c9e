"""Reads the list of hosts again and again, beside everything else that the driver does.

A list that differs from the one before counts when it's read twice in a row: a file may be read while it's being
written, and a script may fail to ask for half of the machines.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from tfdist.cluster.lifeline import Lifeline, kill_group
from tfdist.errors import LaunchError
from tfdist.launch.attempts import say
from tfdist.launch.elastic.hosts import Host, parse_hosts

_LAST_LINES = 5
# No list is longer, but what a broken script prints may be.
_MAX_BYTES = 1_000_000


class Source(Protocol):
    """Where the list comes from."""

    name: str

    def ask(self, now: float) -> None:
        """Begins a reading.

        Raises:
            LaunchError: It can't begin.
        """

    def take(self, now: float) -> str | None:
        """The list's text, or None as long as the reading goes on.

        Raises:
            LaunchError: It can't be read.
        """

    def close(self) -> None:
        """Ends a reading that goes on."""


class HostsFile:
    """A file with the list.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def ask(self, now: float) -> None:
        """Nothing to begin."""

    def take(self, now: float) -> str | None:
        """As in `Source`."""
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "no text"
            raise LaunchError(
                f"The hosts file must be a text file that can be read ({why}). Received: hosts_file={self.name!r}. "
                f"Write the hosts to it, one a line."
            ) from error

    def close(self) -> None:
        """Nothing goes on."""


class HostScript:
    """A program that prints the list; killed when it takes too long.

    Args:
        command: Program and arguments.
        lifeline: Starts it.
        timeout_seconds: How long it may take.
    """

    def __init__(self, command: Sequence[str], lifeline: Lifeline, timeout_seconds: float) -> None:
        self.name = " ".join(command)
        self._command, self._lifeline, self._timeout_seconds = command, lifeline, timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._files: tuple[IO[Any], IO[Any]] | None = None
        self._end_at = 0.0

    def ask(self, now: float) -> None:
        """As in `Source`. What the program prints goes to files, so that nobody need listen."""
        self.close()
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._files, self._end_at = (out, err), now + self._timeout_seconds
        try:
            self._process = self._lifeline.start(self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as error:
            self.close()
            raise LaunchError(
                f"The host discovery must be a program that can be run ({error.strerror}). Received: host_discovery="
                f"{self.name!r}. Check the path and its right to be run."
            ) from error

    def take(self, now: float) -> str | None:
        """As in `Source`."""
        if self._process is None or self._files is None:
            return None
        code = self._process.poll()
        if code is None and now < self._end_at:
            return None
        out, err = (_read(file) for file in self._files)
        self.close()
        if code is None:
            raise LaunchError(
                f"The host discovery must answer within {self._timeout_seconds:g} s. Received: none from "
                f"{self.name!r}, which was killed. Make it faster, or raise --discovery_timeout."
            )
        if code != 0:
            words = " / ".join(err.splitlines()[-_LAST_LINES:]) or "nothing on stderr"
            raise LaunchError(
                f"The host discovery must end with exit code 0. Received: {code} from {self.name!r}, which said: "
                f"{words}. Run it by hand."
            )
        return out

    def close(self) -> None:
        """Kills it, and what it started."""
        if self._process is not None:
            if self._process.poll() is None:
                kill_group(self._process.pid)
                self._process.wait()
            self._lifeline.forget(self._process)
        for file in self._files or ():
            file.close()
        self._process = self._files = None


def _read(file: IO[Any]) -> str:
    file.seek(0)
    return file.read(_MAX_BYTES).decode("utf-8", errors="replace")


class Discovery:
    """The hosts that there are.

    Args:
        source: Of the list.
        seconds: From one reading to the next.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        self._source, self._seconds = source, seconds
        self._hosts: list[Host] | None = None
        self._candidate: list[Host] | None = None
        self._asked_at: float | None = None
        self._next_at = 0.0
        self._known_at = float("-inf")
        self._problem = ""

    @property
    def hosts(self) -> list[Host]:
        """By the latest list that counts."""
        return self._hosts or []

    def is_fresh(self, since: float) -> bool:
        """Whether the list was read, to an end, by a reading that began at `since` or later."""
        return self._known_at >= since

    def hurry(self) -> None:
        """Makes the next `poll` begin a reading."""
        self._next_at = 0.0

    def poll(self, now: float) -> None:
        """Goes on with a reading, or begins one when it's time.

        Args:
            now: On the clock of time.monotonic.

        Raises:
            LaunchError: The first reading of all has failed.
        """
        if self._asked_at is None and now < self._next_at:
            return
        try:
            if self._asked_at is None:
                self._asked_at = now
                self._source.ask(now)
            text = self._source.take(now)
            hosts = None if text is None else parse_hosts(text, self._source.name)
        except LaunchError as error:
            self._note_problem(error)
        else:
            if hosts is None:
                return
            self._problem = ""
            self._note(hosts)
        self._asked_at, self._next_at = None, now + self._seconds

    def _note(self, hosts: list[Host]) -> None:
        if self._hosts is None or hosts in (self._hosts, self._candidate):
            self._hosts, self._candidate = hosts, None
            self._known_at = self._asked_at or 0.0
        else:
            self._candidate = hosts

    def _note_problem(self, error: LaunchError) -> None:
        if self._hosts is None:
            raise error
        self._known_at, self._candidate = self._asked_at or 0.0, None
        if str(error) != self._problem:
            self._problem = str(error)
            say(f"the job goes on with the hosts that it knows. {error}")
