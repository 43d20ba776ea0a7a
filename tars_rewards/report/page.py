"""The HTML page: one file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from tars_rewards._version import __version__
from tars_rewards.report import tables
from tars_rewards.report.completions import Set
from tars_rewards.report.evaluation_charts import about
from tars_rewards.report.plots import COLUMNS, Picture
from tars_rewards.report.records import SPEECH, TEXT, Inputs
from tars_rewards.report.settings import ReportSettings
from tars_rewards.report.tables import Cell, Table

_MOST_ROWS = 60  # of a picture's data that are shown as a table; all are in its CSV


@dataclass(frozen=True)
class Figure:
    """A picture in the page."""

    title: str
    caption: str
    alt: str
    light: str  #: data URI
    dark: str
    csv: str  #: data URI
    file: str  #: its name without ending
    width: int
    height: int
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  #: empty where there are too many
    all_rows: int


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    lead: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    folded: Sequence[Table] = ()  #: tables that are shown on demand
    sets: Sequence[Set] = ()


@dataclass(frozen=True)
class KeyFigure:
    """What a run comes down to."""

    run: str
    about: str  #: benchmark and condition
    gap: Cell
    speech: Cell
    text: Cell
    questions: int
    level: str


def figure(picture: Picture, file: str) -> Figure:
    """A picture as the page takes it."""
    chart = picture.chart
    data = list(chart.table())
    return Figure(
        title=chart.title,
        caption=chart.caption,
        alt=chart.in_words(),
        light=_uri("image/svg+xml", picture.light_svg),
        dark=_uri("image/svg+xml", picture.dark_svg),
        csv=_uri("text/csv", picture.csv.encode("utf-8", "replace")),
        file=file,
        width=picture.width,
        height=picture.height,
        columns=COLUMNS,
        rows=[[_plain(cell) for cell in row] for row in data] if len(data) <= _MOST_ROWS else [],
        all_rows=len(data),
    )


def key_figures(inputs: Inputs) -> list[KeyFigure]:
    """Of evaluation runs in both modalities."""
    return [
        KeyFigure(
            run=run.label,
            about=about(run),
            gap=tables.percent(run.gap),
            speech=tables.percent(run.accuracy.get(SPEECH)),
            text=tables.percent(run.accuracy.get(TEXT)),
            questions=run.questions,
            level=f"{100 * run.level:g} %",
        )
        for run in inputs.evaluations
        if run.gap is not None and run.gap.value is not None
    ]


def render(
    sections: Sequence[Section], keys: Sequence[KeyFigure], settings: ReportSettings, *, created: str, summary: str,
    clips: str,
) -> str:  # fmt: skip
    """The page.

    Args:
        sections: Its parts, in order.
        keys: Shown at the top.
        settings: Title, and what is said of the report itself.
        created: When.
        summary: What it is made from, in a sentence.
        clips: What was embedded and what was left out, in a sentence; "" where there is nothing to say.
    """
    import jinja2

    # Completions are other people's text: everything is escaped, and the browser is told to run and fetch nothing.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tars_rewards.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = files("tars_rewards.report").joinpath("style.css").read_text(encoding="utf-8")
    values: dict[str, Any] = {
        "style": style,
        "policy": _policy(style),
        "sections": sections,
        "keys": keys,
        "title": settings.title,
        "created": created,
        "summary": summary,
        "clips": clips,
        "version": __version__,
        "settings": asdict(settings),
    }
    return environment.get_template("report.html.j2").render(values)


def _policy(style: str) -> str:
    """Content security policy: pictures and clips that are in the page, this one style, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _plain(value: Any) -> str:
    if value is None:
        return tables.NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)
