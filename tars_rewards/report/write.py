"""Make a report: a page, and its plots and their data beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError, MissingDependencyError
from tars_rewards.evaluation.records import make_directory
from tars_rewards.report import drift_tables, tables
from tars_rewards.report.charts import Chart
from tars_rewards.report.clips import ClipBox
from tars_rewards.report.collect import collect
from tars_rewards.report.completions import evaluation_sets, training_sets
from tars_rewards.report.drift_charts import layer_charts, position_charts
from tars_rewards.report.evaluation_charts import category_charts, condition_charts, evaluation_charts
from tars_rewards.report.page import Figure, Section, figure, key_figures, render
from tars_rewards.report.plots import draw
from tars_rewards.report.published import layer_means
from tars_rewards.report.records import Inputs, TrainingRun
from tars_rewards.report.settings import ReportSettings
from tars_rewards.report.training_charts import BANDS, training_charts


@dataclass(frozen=True)
class ReportFiles:
    """What was written."""

    page: Path
    plots: Path  #: directory of PNG and CSV files
    figures: int
    clips: int  #: embedded
    clips_left_out: Mapping[str, int]  #: by reason


def write_report(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    settings: ReportSettings | None = None,
) -> ReportFiles:
    """Write one page about runs of all kinds.

    Args:
        paths: Directories of `tars-rewards evaluate`, `tars-rewards drift` and training runs, files of `tars-rewards
            compare`, in any mixture; each is recognised by what is in it. The order is that of the page: before, after.
        out: The page, such as ``report.html``. Plots (PNG) and their data (CSV) go to a directory of the same name that
            ends in ``_files``; the page does not need it.
        settings: How much is shown.

    Raises:
        InputError: An input is unknown, corrupt or of another version, all named; or `out` is not an HTML file's name
            or cannot be written.
        MissingDependencyError: Jinja2 or matplotlib is not installed.
    """
    settings = settings or ReportSettings()
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{page}: expected the name of a page, such as report.html")
    if page.is_dir():
        raise InputError(f"{page}: expected the name of a page, got a directory; give a file's name in it")
    _require("jinja2", "matplotlib")
    inputs = collect(paths)
    make_directory(page.parent)
    plots = _Plots(page.with_name(page.stem + "_files"))
    box = ClipBox(settings.clips, settings.clip_megabytes)
    sections = [section for section in _sections(inputs, plots, box, settings) if section is not None]
    text = render(
        sections,
        key_figures(inputs),
        settings,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        summary=_summary(inputs),
        clips=_clips(box),
    )
    aside = page.with_name(page.name + ".tmp")
    aside.write_text(text, encoding="utf-8", errors="replace")  # half a character, as where a completion was cut off
    aside.replace(page)
    return ReportFiles(page, plots.directory, plots.count, box.embedded, box.left_out)


def _require(*names: str) -> None:
    """Before anything is read or written."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingDependencyError(
                f"a report needs {name}, which is not installed: pip install 'tars-rewards[report]'"
            ) from error


_LONGEST = 120  # characters of a file's name


class _Plots:
    """Draws charts, and keeps PNG and CSV under names of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._names: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._names)

    def figures(self, charts: Sequence[Chart]) -> list[Figure]:
        return [self._figure(chart) for chart in charts]

    def _figure(self, chart: Chart) -> Figure:
        picture = draw(chart)
        base = re.sub(r"[^\w.-]+", "-", chart.name).strip("-")[:_LONGEST]
        name, number = base, 1
        while name in self._names:
            number += 1
            name = f"{base}-{number}"
        self._names.add(name)
        make_directory(self.directory)
        (self.directory / f"{name}.png").write_bytes(picture.png)
        (self.directory / f"{name}.csv").write_text(picture.csv, encoding="utf-8", errors="replace")
        return figure(picture, name)


def _sections(inputs: Inputs, plots: _Plots, box: ClipBox, settings: ReportSettings) -> list[Section | None]:
    runs = inputs.evaluations
    conditions, by_category = condition_charts(runs), category_charts(runs)
    drifts = [
        (drift, [*layer_charts(drift, layer_means() if settings.published else {}), *position_charts(drift)])
        for drift in inputs.drifts
    ]
    said = [*evaluation_sets(runs, settings, box), *training_sets(inputs.trainings, settings, box)]
    return [
        Section(
            "accuracy", "Accuracy and the modality gap", "The same questions, heard and read.",
            tables=[tables.headline(runs, published=settings.published)],
            figures=plots.figures(evaluation_charts(runs, published=settings.published)),
            folded=[tables.conduct(runs)],
        ) if runs else None,
        Section(
            "comparisons", "Compared on the same questions", "Paired differences, tested and corrected.",
            tables=[tables.comparison(each) for each in inputs.comparisons],
        ) if inputs.comparisons else None,
        Section(
            "categories", "Gap by category", "Where what is heard is answered worse than what is read.",
            figures=plots.figures(by_category),
            folded=[tables.categories(run) for run in runs if run.categories],
        ) if any(run.categories for run in runs) else None,
        Section(
            "conditions", "Noise and speed", "The same questions, heard under other conditions.",
            figures=plots.figures(conditions),
        ) if conditions else None,
        *[
            Section(
                f"drift-{number}", f"Representational drift: {drift.label}",
                "How alike the model's states are when it hears and when it reads the same question, layer by layer.",
                tables=[drift_tables.behavior(drift)] if drift.behavior else [],
                figures=plots.figures(charts),
                folded=[drift_tables.overall(drift)],
            )
            for number, (drift, charts) in enumerate(drifts, start=1)
        ],
        *[
            Section(
                f"training-{number}", f"Training: {run.label}", _of_training(run),
                figures=plots.figures(training_charts(run)),
            )
            for number, run in enumerate(inputs.trainings, start=1)
        ],
        Section(
            "completions", "Completions side by side", "What was said to the same questions, heard and read.", sets=said,
        ) if said else None,
        Section(
            "published", "Published figures", "From the paper, for the scale of things: nothing in it was measured here.",
            folded=tables.published_tables(),
        ) if settings.published and (runs or inputs.drifts) else None,
        Section(
            "settings", "Settings and versions", "Everything that is recorded of each input.",
            folded=[tables.settings_table(title, content) for title, content in _recorded(inputs, settings)],
        ),
    ]  # fmt: skip


def _of_training(run: TrainingRun) -> str:
    return f"Reward terms by step and modality. {BANDS}" if run.steps else "Rewards of the rollouts that were kept."


def _recorded(inputs: Inputs, settings: ReportSettings) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = [
        (f"Evaluation: {run.label}", {**run.recorded, "resampling": run.resampling}) for run in inputs.evaluations
    ]
    for comparison in inputs.comparisons:
        arms = {name: {"runs": arm["runs"], "settings": arm["settings"]} for name, arm in comparison.arms.items()}
        found.append((f"Comparison: {comparison.label}", {**comparison.info, "arms": arms}))
    found += [(f"Drift: {drift.label}", drift.info) for drift in inputs.drifts]
    for run in inputs.trainings:
        counts = {"steps with metrics": len(run.steps), "rollouts kept": len(run.rollouts)}
        found.append((f"Training: {run.label}", {**counts, **run.info}))
    return [*found, ("This report", asdict(settings))]


def _summary(inputs: Inputs) -> str:
    counts = (
        (len(inputs.evaluations), "evaluation run"),
        (len(inputs.comparisons), "comparison"),
        (len(inputs.drifts), "drift measurement"),
        (len(inputs.trainings), "training run"),
    )
    return "Made from " + ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in counts if n) + "."


def _clips(box: ClipBox) -> str:
    if not box.embedded and not box.left_out:
        return ""
    left = "; ".join(f"{count} ({reason})" for reason, count in box.left_out.items())
    return f"Clips of the questions shown: {box.embedded} in this page. " + (
        f"Left out: {left}." if left else "None left out."
    )
