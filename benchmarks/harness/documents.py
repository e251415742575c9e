"""The part of docs/benchmarks.md that a benchmark writes: between two comments, so that all around it stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DocumentError(RuntimeError):
    """The document's markers are not a pair."""


def markers(name: str) -> tuple[str, str]:
    """The lines before and behind what is written."""
    return f"<!-- written by `tfdist bench {name} --docs` -->", f"<!-- end of {name} -->"


def with_section(text: str, name: str, lines: Sequence[str]) -> str:
    """A document with these lines in the section of a benchmark; a section that it doesn't have comes at its end.

    Raises:
        DocumentError: one of the markers is there without the other, or more than once.
    """
    begin, end = markers(name)
    found = text.count(begin), text.count(end)
    written = "\n".join([begin, "", *lines, "", end])
    if found == (0, 0):
        return f"{text.rstrip()}\n\n## {name}\n\n{written}\n"
    if found != (1, 1) or text.index(begin) > text.index(end):
        raise DocumentError(
            f"Expected: {begin!r} once, and {end!r} once behind it. Received: {found[0]} and {found[1]} of them. "
            "Repair the document, or remove both."
        )
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{written}{after}"


def update(path: Path, name: str, lines: Sequence[str]) -> None:
    """Write a benchmark's section of a document."""
    path.write_text(with_section(path.read_text(encoding="utf-8"), name, lines), encoding="utf-8")
