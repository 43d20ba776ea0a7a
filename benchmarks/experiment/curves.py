"""The experiment's plots, drawn as `tars-rewards report` draws: pictures for README.md, in ``plots/``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparisons import STANDARD, TARS, UNTRAINED, Arms, Run, measured
from spread import ENOUGH, Spread

from tars_rewards.report.charts import Chart, Look, Series
from tars_rewards.report.plots import draw
from tars_rewards.report.records import Estimate

BAND = f"95 % over seeds, from {ENOUGH} on"
# The arms along training: the others are in the table.
DRAWN: dict[str, Look] = {STANDARD: "first", TARS: "second", "symmetric": "third", "reasoning_format": "fourth"}
WINDOW = 10  # steps that a point of a per-step curve averages


def write_plots(bases: Mapping[str, Arms], directory: Path) -> list[Path]:
    """Draw every chart of every base into a directory; returns the files."""
    directory.mkdir(exist_ok=True)
    written = []
    for base, arms in bases.items():
        for chart in charts(base, arms):
            path = directory / f"{chart.name}.png"
            path.write_bytes(draw(chart).png)
            written.append(path)
    return written


def charts(base: str, arms: Arms) -> Iterator[Chart]:
    """What is drawn of one base."""
    yield _ends(base, arms)
    drawn = {arm: arms[arm] for arm in DRAWN if arm in arms}
    if not drawn:
        return
    yield _checkpoints(base, drawn, arms.get(UNTRAINED, ()))
    for key, title, label in (
        ("all_wrong", "All-wrong groups", "share of spoken groups"),
        ("reasons/speech", "Spoken answers that reason", "share"),
        ("spread/representation", "Representation within groups", "standard deviation"),
        ("spread/behavior", "Behavior within groups", "standard deviation"),
    ):
        series = [each for arm, runs in drawn.items() if (each := _along(arm, runs, key)) is not None]
        if series:
            yield Chart(
                name=f"{base}_{key.replace('/', '_')}",
                title=f"{title}, {base} base",
                caption=f"Means of {WINDOW} steps; {BAND}.",
                x="step",
                y=label,
                series=series,
            )


def _ends(base: str, arms: Arms) -> Chart:
    """Accuracy of each arm at its end, spoken and written."""
    rows = list(arms)
    series = []
    for modality in ("speech", "text"):
        points = [_estimate([measured(run)[f"{modality}_accuracy"] for run in arms[arm]]) for arm in rows]
        name = {"speech": "spoken", "text": "written"}[modality]
        series.append(Series(name, list(range(len(rows))), points, "speech" if modality == "speech" else "text", BAND))
    return Chart(
        name=f"{base}_accuracy",
        title=f"Accuracy at the end, {base} base",
        caption=f"2,000 test questions; {BAND}.",
        x="accuracy",
        y="arm",
        series=series,
        rows=rows,
    )


def _checkpoints(base: str, arms: Arms, untrained: Sequence[Run]) -> Chart:
    """Spoken accuracy on the dev set along training, from the base on where that was measured."""
    start = [measured(run, 0, "dev")["speech_accuracy"] for run in untrained]
    series = []
    for arm, runs in arms.items():
        steps = sorted({point["step"] for run in runs for point in run["checkpoints"] if "dev" in point["sets"]})
        points = [_estimate([measured(run, step, "dev")["speech_accuracy"] for run in runs]) for step in steps]
        if start:
            steps, points = [0, *steps], [Estimate(statistics.fmean(start)), *points]
        series.append(Series(arm, steps, points, DRAWN[arm], BAND))
    return Chart(
        name=f"{base}_dev",
        title=f"Spoken accuracy along training, {base} base",
        caption=f"500 dev questions; {BAND}.",
        x="step",
        y="accuracy",
        series=series,
    )


def _along(arm: str, runs: Sequence[Run], key: str) -> Series | None:
    """A per-step figure, averaged over windows; None where the arm does not have it."""
    logs = [run["log"][key] for run in runs if any(value is not None for value in run["log"].get(key, ()))]
    if not logs:
        return None
    length = min(map(len, logs)) // WINDOW * WINDOW
    x, points = [], []
    for start in range(0, length, WINDOW):
        of_seeds = [_mean(log[start : start + WINDOW]) for log in logs]
        known = [value for value in of_seeds if value is not None]
        x.append(start + (WINDOW + 1) / 2)
        points.append(_estimate(known) if known else Estimate(None))
    return Series(arm, x, points, DRAWN[arm], BAND)


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _estimate(values: Sequence[float]) -> Estimate:
    spread = Spread.of(values)
    low, high = (None, None) if spread.half is None else (spread.mean - spread.half, spread.mean + spread.half)
    return Estimate(spread.mean, low, high, spread.seeds)
