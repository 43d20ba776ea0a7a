"""What is drawn, as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tars_rewards.report.records import SPEECH, TEXT, Estimate

Look = Literal[
    "speech", "text", "first", "second", "third", "fourth", "first_control", "second_control", "change", "control",
    "published", "published_second",
]  # fmt: skip
RUN_LOOKS: tuple[Look, ...] = ("first", "second", "third", "fourth")
"""Of runs, in the order given; used again from the beginning where there are more."""
PUBLISHED_LOOKS: tuple[Look, ...] = ("published", "published_second")
MODALITY_LOOKS: dict[str, Look] = {SPEECH: "speech", TEXT: "text"}


@dataclass(frozen=True)
class Series:
    """One line, or one kind of dots."""

    name: str
    x: Sequence[float]  #: places; of dots: number of the row, from 0 at the top
    points: Sequence[Estimate]
    look: Look
    band: str = "95 % interval"  #: what the interval is; named in the data

    @property
    def published(self) -> bool:
        """It was not measured here."""
        return self.look.startswith("published")


@dataclass(frozen=True)
class Chart:
    """A figure of the report."""

    name: str  #: of its files
    title: str
    caption: str  #: what the intervals are, and what n is
    x: str  #: label of the horizontal axis
    y: str
    series: Sequence[Series]
    rows: Sequence[str] = ()  #: of a chart of dots: names of its rows; a chart without is one of lines
    limits: tuple[float, float] | None = None  #: of the measured axis
    zero: bool = False  #: draw a line at 0
    whole: bool = True  #: only whole numbers are marked on the horizontal axis of lines

    @property
    def dots(self) -> bool:
        """Rows of dots, the measured axis horizontal."""
        return bool(self.rows)

    def table(self) -> Iterator[tuple[str, str | float, float | None, float | None, float | None, int | None, str]]:
        """Its data: series, place, value, low, high, n, "measured" or "published"."""
        for series in self.series:
            for x, point in zip(series.x, series.points, strict=True):
                place = self.rows[int(x)] if self.dots else x
                source = "published" if series.published else "measured"
                yield series.name, place, point.value, point.low, point.high, point.n, source

    def in_words(self) -> str:
        """For those who do not see it: what is shown, and from where to where each series goes."""
        axes = f"{self.x}, by {self.y}" if self.dots else f"{self.y} by {self.x}"
        return f"{'Dot' if self.dots else 'Line'} chart of {axes}. " + " ".join(
            self._words(each) for each in self.series
        )

    def _words(self, series: Series) -> str:
        there = [(x, point) for x, point in zip(series.x, series.points, strict=True) if point.value is not None]
        if not there:
            return f"{series.name}: no value."
        if self.dots:
            first = [f"{self.rows[int(x)]} {point.value:.3g}" for x, point in there[:8]]
            more = len(there) - len(first)
            return f"{series.name}: {', '.join(first)}{f', and {more} more' if more else ''}."
        (begin, first_point), (end, last_point) = there[0], there[-1]
        return f"{series.name}: {first_point.value:.3g} at {begin:g}, {last_point.value:.3g} at {end:g}."
