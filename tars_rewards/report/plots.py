"""A chart as pictures and as a table."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tars_rewards.report.charts import Chart, Series

COLUMNS = ("series", "place", "value", "low", "high", "n", "source")
_WIDTH = 3.9  # inches: about as wide as a telephone, so that its letters can be read there
_PALETTES = {
    "light": {
        "ink": "#1b2733",
        "grid": "#d5dce3",
        "speech": "#0067a8",
        "text": "#c24e00",
        "first": "#7a4fa3",
        "second": "#00785c",
        "first_control": "#7a4fa3",
        "second_control": "#00785c",
        "third": "#a3355f",
        "fourth": "#6b6a00",
        "change": "#2f4a9e",
        "control": "#5d6b78",
        "published": "#5d6b78",
        "published_second": "#5d6b78",
    },
    "dark": {
        "ink": "#e6ebf0",
        "grid": "#3a4653",
        "speech": "#62b6f0",
        "text": "#f2a15c",
        "first": "#c3a1ea",
        "second": "#4fd0a9",
        "first_control": "#c3a1ea",
        "second_control": "#4fd0a9",
        "third": "#f08bb0",
        "fourth": "#d6d15a",
        "change": "#a9bcff",
        "control": "#9fadba",
        "published": "#9fadba",
        "published_second": "#9fadba",
    },
}
# Told apart by more than colour: markers and lines differ too.
_MARKERS = {
    "speech": "o",
    "text": "s",
    "first": "o",
    "second": "s",
    "third": "^",
    "fourth": "v",
    "first_control": "x",
    "second_control": "+",
    "change": "o",
    "control": "x",
    "published": "o",
    "published_second": "s",
}
_LINES: dict[str, Any] = {
    "speech": "-",
    "text": "--",
    "first": "--",
    "second": "-",
    "third": "-.",
    "fourth": (0, (5, 1, 1, 1, 1, 1)),
    "first_control": ":",
    "second_control": ":",
    "change": "-",
    "control": ":",
    "published": (0, (1, 2)),
    "published_second": (0, (5, 2, 1, 2)),
}
_LONGEST = 54  # characters of a row's name that are shown
_UNSHOWN = re.compile(
    "[^\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # not allowed in XML: no browser would show the SVG
_MARKED = 40  # points above which a line has no markers


@dataclass(frozen=True)
class Picture:
    """A chart, drawn."""

    chart: Chart
    light_svg: bytes
    dark_svg: bytes
    png: bytes  #: light
    csv: str
    width: int  #: CSS pixels
    height: int


def draw(chart: Chart) -> Picture:
    """Draw a chart in both palettes."""
    import matplotlib

    drawn: dict[tuple[str, str], bytes] = {}
    size = (0.0, 0.0)
    for theme, kind in (("light", "svg"), ("dark", "svg"), ("light", "png")):
        with matplotlib.rc_context(_style(_PALETTES[theme])):
            figure = _figure(chart, _PALETTES[theme])
            size = tuple(figure.get_size_inches())
            file = io.BytesIO()
            background = {"facecolor": "white"} if kind == "png" else {"transparent": True}
            metadata = {"Date": None} if kind == "svg" else {}
            figure.savefig(file, format=kind, dpi=160, metadata=metadata, **background)
            drawn[theme, kind] = file.getvalue()
    width, height = (round(inches * 96) for inches in size)
    return Picture(
        chart, drawn["light", "svg"], drawn["dark", "svg"], drawn["light", "png"], csv_of(chart), width, height
    )


def csv_of(chart: Chart) -> str:
    """The chart's data; an empty cell is a value that does not exist."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(chart.table())
    return file.getvalue()


def _style(palette: dict[str, str]) -> Any:  # a mapping; its keys are typed one by one
    ink = palette["ink"]
    return {
        "font.size": 10.5,
        "axes.titlesize": 10.5,
        "axes.edgecolor": palette["grid"],
        "axes.labelcolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": palette["grid"],
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "text.parse_math": False,  # names are names, also with a $ in them
        "svg.fonttype": "path",
        "svg.hashsalt": "tars-rewards",  # the same chart is the same file
    }


def _figure(chart: Chart, palette: dict[str, str]) -> Figure:
    from matplotlib.figure import Figure

    named = len(chart.series) > 1 or any(each.published for each in chart.series)
    labels = [_wrapped(each.name, 40) for each in chart.series]
    columns = 1 if max(map(len, labels)) > 18 else 2
    legend_rows = -(-sum(label.count("\n") + 1 for label in labels) // columns) if named else 0
    row = max(0.4, 0.15 * len(chart.series) + 0.08)
    height = 0.8 + row * len(chart.rows) if chart.dots else 2.3
    figure = Figure(figsize=(_WIDTH, height + 0.2 * legend_rows + 0.1), layout="constrained")
    axes = figure.add_subplot()
    (_dots if chart.dots else _lines)(axes, chart, palette)
    if named:
        figure.legend(loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.4)
    return figure


def _lines(axes: Axes, chart: Chart, palette: dict[str, str]) -> None:
    for series in chart.series:
        color = palette[series.look]
        x = list(series.x)
        y, low, high = _columns(series)
        marked = _MARKERS[series.look] if len(x) <= _MARKED and not series.published else None
        axes.plot(x, y, color=color, linestyle=_LINES[series.look], marker=marked, markersize=3.5, linewidth=1.6,
                  label=_wrapped(series.name, 40))  # fmt: skip
        axes.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0)
    axes.set(xlabel=chart.x, ylabel=chart.y)
    if chart.limits is not None:
        axes.set_ylim(*chart.limits)
    if chart.whole:
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    if chart.zero:
        axes.axhline(0, color=palette["ink"], linewidth=0.8)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _dots(axes: Axes, chart: Chart, palette: dict[str, str]) -> None:
    height = 0.5 / max(1, len(chart.series))
    for index, series in enumerate(chart.series):
        color = palette[series.look]
        shift = (index - (len(chart.series) - 1) / 2) * height
        y = [row + shift for row in series.x]
        value, low, high = _columns(series)
        axes.hlines(y, low, high, color=color, linewidth=2)
        filled = "none" if series.published else color
        axes.scatter(value, y, marker=_MARKERS[series.look], s=34, facecolor=filled, edgecolor=color, linewidth=1.3,
                     label=_wrapped(series.name, 40), zorder=3)  # fmt: skip
    names = [_wrapped(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…", 18) for name in chart.rows]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel=chart.x, ylabel=None)
    axes.tick_params(axis="y", length=0)
    if chart.limits is not None:
        axes.set_xlim(*chart.limits)
    if chart.zero:
        axes.axvline(0, color=palette["ink"], linewidth=0.8)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _wrapped(name: str, width: int) -> str:
    """A name in lines. matplotlib leaves names that begin with an underscore out of legends: they get a space."""
    lines = _UNSHOWN.sub("\ufffd", "\n".join(textwrap.wrap(name, width)))
    return f" {lines}" if lines.startswith("_") else lines


def _columns(series: Series) -> tuple[list[float], list[float], list[float]]:
    """Values and ends; matplotlib leaves out what is NaN."""
    nothing = float("nan")
    value = [nothing if point.value is None else point.value for point in series.points]
    low = [nothing if point.low is None else point.low for point in series.points]
    high = [nothing if point.high is None else point.high for point in series.points]
    return value, low, high
