"""A picture of what a run found; needs matplotlib."""

from __future__ import annotations

from pathlib import Path

from .report import Report

REMEDY = "no picture: matplotlib is not installed. Remedy: pip install 'tfdist[plot]'"


def draw(report: Report, path: Path) -> bool:
    """Bars for each quantity that is plotted: groups by setting, a colour a contender, spread as a line.

    Returns:
        Whether matplotlib is there.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = report.as_json()["rows"]
    quantities = [one for one in report.benchmark.quantities if one.is_plotted]
    figure = Figure(figsize=(8, 3.2 * len(quantities)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, quantity in enumerate(quantities, start=1):
        axes = figure.add_subplot(len(quantities), 1, place, ylabel=quantity.heading)
        _bars(axes, [row for row in rows if row["quantity"] == quantity.name])
    figure.suptitle(report.benchmark.name)
    figure.savefig(path, dpi=120)
    return True


def _bars(axes: object, rows: list[dict]) -> None:
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    width = 0.8 / max(1, len(contenders))
    for index, contender in enumerate(contenders):
        own = [row for row in rows if row["contender"] == contender]
        x = [settings.index(row["setting"]) + (index - (len(contenders) - 1) / 2) * width for row in own]
        spread = [[row["median"] - row["low"] for row in own], [row["high"] - row["median"] for row in own]]
        axes.bar(x, [row["median"] for row in own], width, yerr=spread, label=contender, error_kw={"lw": 0.8})  # type: ignore[attr-defined]
    axes.set_xticks(range(len(settings)), settings, fontsize="small")  # type: ignore[attr-defined]
    axes.grid(visible=True, axis="y", alpha=0.3)  # type: ignore[attr-defined]
    axes.legend(fontsize="x-small")  # type: ignore[attr-defined]
