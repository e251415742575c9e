"""A plan as text, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfdist.errors import TfdistError
from tfdist.planning.methods import Prediction
from tfdist.planning.plans import Plan
from tfdist.planning.quantities import in_bytes, in_seconds
from tfdist.tables import aligned

_HEAD = ("method", "step", "efficiency", "sent a step", "bottleneck", "remark")


class PlotError(TfdistError):
    """The picture can't be made."""


def text_of(plan: Plan) -> str:
    """A table of all methods, and the choice."""
    lines = aligned([_HEAD, *map(_cells, plan.predictions)], right={1, 2, 3})
    choice = f"Take {plan.best.strategy} ({plan.best.method}): {plan.reason}."
    worst = plan.best.bottleneck
    return "\n".join([*lines, "", choice, f"What holds it up: {'nothing' if worst == 'none' else worst}."])


def _cells(one: Prediction) -> tuple[str, ...]:
    sent = in_bytes(one.sent_bytes)
    return (one.method, in_seconds(one.step_seconds), f"{one.efficiency:.0%}", sent, one.bottleneck, one.remark)


def json_of(plan: Plan) -> dict[str, Any]:
    """All numbers, in seconds and bytes."""

    def every(one: Prediction) -> dict[str, Any]:
        derived = {"step_seconds": one.step_seconds, "efficiency": one.efficiency, "bottleneck": one.bottleneck}
        return {**asdict(one), **derived}

    predictions = [every(one) for one in plan.predictions]
    return {"best": plan.best.method, "reason": plan.reason, "predictions": predictions}


def plot(path: Path, hosts: Sequence[int], efficiency: Mapping[str, Sequence[float]]) -> None:
    """Write a picture of the efficiency of each method over the number of hosts.

    Raises:
        PlotError: matplotlib isn't there, or the file can't be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError("Expected: matplotlib, which draws. Received: none. pip install 'tfdist[plot]'") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="hosts", ylabel="efficiency", xscale="log", ylim=(0, 1.05))
    axes.set_xscale("log", base=2)
    for method, values in efficiency.items():
        axes.plot(hosts, values, marker="o", markersize=3, label=method)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise PlotError(f"Expected: a file such as plan.png to write to. Received: {path}: {error}.") from error
