"""The verdict as a person reads it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tfdist.verify.comparison import Comparison, Difference
from tfdist.verify.result import Result, Verdict

_WIDTH = 100
_LABEL = 12
_MOST_NAMES = 6


def report(result: Result) -> str:
    """The whole text, from the verdict to the remedy."""
    lines = {Verdict.EQUAL: _equal, Verdict.DIFFERENT: _different, Verdict.NOT_RUN: _not_run}[result.verdict](result)
    return "\n".join(lines)


def _equal(result: Result) -> Iterator[str]:
    found = _found(result)
    yield f"EQUAL: {_several(result)} train as one device does."
    yield from _compared(found)
    if result.float64 is not None:
        yield from _labelled("rounding", _rounding(result))
    yield from _remarks(result)


def _different(result: Result) -> Iterator[str]:
    found, finding = _found(result), result.finding
    yield f"DIFFERENT {_since(found)}: {_several(result)} do not train as one device does."
    yield from _labelled("difference", _first(found))
    if result.float64 is not None:
        yield from _labelled(
            "precision", "Seen in float64 too, where rounding is 5e8 times smaller: it is no rounding."
        )
    if finding is not None:
        yield from _labelled("cause", f"{finding.title} ({finding.confidence})")
        for place in _shortened(finding.where):
            yield from _labelled("", f"- {place}")
        yield from _labelled("why", finding.explanation)
        yield from _labelled("remedy", finding.remedy)
    yield from _remarks(result)


def _not_run(result: Result) -> Iterator[str]:
    yield f"COULD NOT RUN: {result.failed}"
    if len(result.words) == 1:
        yield from textwrap.wrap(result.words[0], _WIDTH, initial_indent="    ", subsequent_indent="    ")
        return
    yield from (f"    {word}" for word in result.words)


def _found(result: Result) -> Comparison:
    if result.deciding is None:
        raise ValueError(f"A verdict stands on a comparison. Received: comparison=None for {result.verdict}.")
    return result.deciding


def _several(result: Result) -> str:
    options = result.options
    workers = f"{options.workers} worker{'s' if options.workers > 1 else ''}"
    return workers if options.accumulate == 1 else f"{workers} with {options.accumulate} micro-batches a step"


def _since(found: Comparison) -> str:
    steps = [found.first[0].step] if found.first else []
    steps += [found.data.step] if found.data else []
    if not steps:
        return "in the number of steps" if found.structure else "between workers"
    return f"from step {min(steps)} on" if min(steps) else "before the first step"


def _compared(found: Comparison) -> Iterator[str]:
    logs = ", ".join(sorted(found.logs)) or "no logs"
    yield from _labelled(
        "compared", f"{found.steps} steps, {found.variables} variables; {logs}; the rows of every step"
    )
    for label, worst in (("weights", found.worst_variable), ("logs", found.worst_log)):
        if worst is not None:
            yield from _labelled(label, _largest(worst))


def _largest(worst: Difference) -> str:
    if not worst.absolute:
        return "no difference in any bit"
    return (
        f"largest difference {worst.absolute:.1e}, {worst.name} at step {worst.step}, where up to {worst.allowed:.1e} "
        f"may be rounding (its values are up to {worst.scale:.3g})"
    )


def _first(found: Comparison) -> str:
    said = []
    if found.structure:
        said.append(f"{found.structure}.")
    if found.data is not None:
        said.append(
            f"At step {found.data.step} one device trains on {found.data.expected} rows, all replicas together on "
            f"{found.data.received}; {found.data.common} are the same."
        )
    if found.first:
        worst, rest = found.first[0], len(found.first) - 1
        others = f" {rest} more differ at that step." if rest else ""
        said.append(
            f"{worst.name} is off by {worst.absolute:.2e}{_of_move(worst)}, where up to {worst.allowed:.1e} may be "
            f"rounding.{others}"
        )
    if found.workers_apart is not None:
        said.append(f"Workers hold different weights after step {found.workers_apart}.")
    return " ".join(said)


def _of_move(worst: Difference) -> str:
    if worst.kind == "log":
        return f" (its values are up to {worst.scale:.3g})"
    return f" ({worst.absolute / worst.moved:.0%} of what training has moved it)" if worst.moved else ""


def _rounding(result: Result) -> str:
    own = result.comparison.first[0] if result.comparison and result.comparison.first else None
    if own is None:
        return "the differences vanish in float64"
    return (
        f"In the script's own precision {own.name} is off by {own.absolute:.1e} at step {own.step}. That is amplified "
        "rounding: it vanishes in float64, in which the figures above are."
    )


def _remarks(result: Result) -> Iterator[str]:
    if result.inert:
        names = ", ".join(_shortened(result.inert))
        said = f"{names}: switched off in both runs, since every replica draws its own numbers. That is right as it is."
        yield from _labelled("random", said)
    for note in result.notes:
        yield from _labelled("note", note)
    if result.options.keep is not None:
        yield from _labelled("kept", f"recordings and logs of all runs in {result.options.keep}")


def _shortened(names: tuple[str, ...]) -> list[str]:
    more = len(names) - _MOST_NAMES
    return [*names[:_MOST_NAMES], *([f"and {more} more"] if more > 0 else [])]


def _labelled(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {label:<{_LABEL}}",
        subsequent_indent=" " * (_LABEL + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
