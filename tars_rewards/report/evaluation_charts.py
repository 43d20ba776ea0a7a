"""Charts of evaluation runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tars_rewards.drift.published import SOURCE
from tars_rewards.report.charts import MODALITY_LOOKS, RUN_LOOKS, Chart, Look, Series
from tars_rewards.report.published import MODELS, TITLES, published_set
from tars_rewards.report.records import SPEECH, TEXT, Estimate, Evaluation

_MOST_CATEGORIES = 40


def evaluation_charts(runs: Sequence[Evaluation], *, published: bool) -> list[Chart]:
    """Accuracy of every run; published accuracies are in a chart of their own, on the same axis."""
    charts = []
    for benchmark, of_it in by_benchmark(runs).items():
        modalities = dict.fromkeys(name for run in of_it for name in run.accuracy)
        series = [
            Series(modality, *_present([run.accuracy.get(modality) for run in of_it]), _look(modality), band(run0))
            for modality in modalities
            for run0 in of_it[:1]
        ]
        counts = sorted({run.questions for run in of_it})
        caption = f"Bars are {band(of_it[0])}s (bootstrap by question); n = {_and(counts)} questions."
        charts.append(
            Chart(f"accuracy-{benchmark}", f"Accuracy on {benchmark}", caption, "accuracy", "run", series,
                  rows=[run.label for run in of_it], limits=(0.0, 1.0))
        )  # fmt: skip
        if published and (name := published_set(benchmark)):
            charts.append(_published_chart(name))
    return charts


def _published_chart(name: str) -> Chart:
    pairs = [getattr(model, name) for model in MODELS]
    spoken = [Estimate(speech / 100) for speech, _ in pairs]
    written = [None if text is None else Estimate(text / 100) for _, text in pairs]
    title = f"Published accuracy on {TITLES[name]} (not measured here)"
    caption = f"{SOURCE[0].upper()}{SOURCE[1:]}: other models and other software; no intervals were published."
    series = [
        Series(f"{SPEECH}, published", *_present(spoken), "published", "none published"),
        Series(f"{TEXT}, published", *_present(written), "published_second", "none published"),
    ]
    rows = [model.name for model in MODELS]
    return Chart(f"published-{name}", title, caption, "accuracy", "model", series, rows=rows, limits=(0.0, 1.0))


def category_charts(runs: Sequence[Evaluation]) -> list[Chart]:
    """Gap by category; runs that heard the same benchmark in the same way side by side, a few in one chart."""
    groups: dict[str, list[Evaluation]] = {}
    for run in runs:
        groups.setdefault(about(run), []).append(run)
    few = len(RUN_LOOKS)
    return [
        chart
        for title, of_it in groups.items()
        for begin in range(0, len(of_it), few)
        for chart in _category_chart(title, of_it[begin : begin + few])
    ]


def _category_chart(title: str, runs: Sequence[Evaluation]) -> list[Chart]:
    counts: dict[str, int] = {}
    for run in runs:
        for category in run.categories:
            if category.gap is not None:
                counts[category.name] = max(counts.get(category.name, 0), category.questions)
    names = sorted(counts)[:_MOST_CATEGORIES]
    if not names:
        return []
    series = []
    for run, look in zip(runs, RUN_LOOKS, strict=False):
        gaps = {category.name: category.gap for category in run.categories}
        series.append(Series(run.label, *_present([gaps.get(name) for name in names]), look, band(run)))
    left = len(counts) - len(names)
    caption = (
        f"Text less speech accuracy: right of 0, what is read is answered better. Bars are {band(runs[0])}s (bootstrap by "
        "question), without correction for the number of categories."
        + (f" {left} more categories are in the tables below." if left else "")
    )
    rows = [f"{name} (n\u00a0=\u00a0{counts[name]})" for name in names]
    return [
        Chart(f"gap-by-category-{title}", f"Gap by category, {title}", caption, "gap (text − speech)", "category", series,
              rows=rows, zero=True)
    ]  # fmt: skip


def condition_charts(runs: Sequence[Evaluation]) -> list[Chart]:
    """Accuracy by signal-to-noise ratio and by speed, of runs that differ in nothing else."""
    charts: list[Chart] = []
    groups: dict[str, list[Evaluation]] = {}
    for run in runs:
        same = (run.info.model, run.info.benchmark, run.info.questions, run.info.prompts, run.info.extractor,
                dict(run.info.sampling))  # fmt: skip
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        for key, label, unit in (("snr_db", "signal-to-noise ratio in dB", "SNR"), ("speed", "speed", "speed")):
            charts += _condition_chart(group, key, label, unit)
    return charts


def _condition_chart(group: Sequence[Evaluation], key: str, label: str, unit: str) -> list[Chart]:
    def others(run: Evaluation) -> dict[str, object]:
        return {name: value for name, value in run.info.condition.items() if name != key}

    charts = []
    for setting in {json.dumps(others(run), sort_keys=True, default=str): others(run) for run in group}.values():
        of_it = [
            run for run in group if others(run) == setting and isinstance(run.info.condition.get(key), int | float)
        ]
        of_it.sort(key=lambda run: float(run.info.condition[key]))
        at = [float(run.info.condition[key]) for run in of_it]
        if len(set(at)) < 2:
            continue
        series = []
        for modality in dict.fromkeys(name for run in of_it for name in run.accuracy):
            accuracies = [run.accuracy.get(modality, Estimate(None)) for run in of_it]
            series.append(Series(modality, at, accuracies, _look(modality), band(of_it[0])))
        quiet = next((run for run in group if key == "snr_db" and run.info.condition.get(key) is None), None)
        if quiet is not None and others(quiet) == setting and (without := quiet.accuracy.get(SPEECH)) is not None:
            series.append(Series(f"{SPEECH}, without noise", [at[0], at[-1]], [without] * 2, "control", band(quiet)))
        gaps = [run.gap or Estimate(None) for run in of_it]
        if any(gap.value is not None for gap in gaps):
            series.append(Series("gap (text − speech)", at, gaps, "change", band(of_it[0])))
        some = of_it[0]
        caption = f"{some.info.model}; bands are {band(some)}s (bootstrap by question), n = {some.questions} questions."
        charts.append(
            Chart(f"condition-{key}-{some.label}", f"Accuracy by {unit}, {some.info.benchmark}", caption, label,
                  "share", series, whole=False, zero=True)
        )  # fmt: skip
    return charts


def by_benchmark(runs: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Runs by the name of their benchmark, in the order given."""
    found: dict[str, list[Evaluation]] = {}
    for run in runs:
        found.setdefault(short_name(run.info.benchmark), []).append(run)
    return found


def short_name(benchmark: str) -> str:
    """A benchmark's name, or that of its file.

    Example:
        >>> short_name("mmsu"), short_name("data/held_out.jsonl")
        ('mmsu', 'held_out.jsonl')
    """
    return benchmark.rstrip("/").rpartition("/")[2]


def heard(condition: Mapping[str, Any]) -> str:
    """How the questions were heard, in words; "" where they are as they were.

    Example:
        >>> heard({"snr_db": 5.0, "speed": 1.25}), heard({"snr_db": None, "speed": 1.0})
        ('noise at 5 dB, speed 1.25', '')
    """
    words = []
    if isinstance(condition.get("snr_db"), int | float):
        words.append(f"noise at {condition['snr_db']:g} dB")
    if isinstance(condition.get("speed"), int | float) and condition["speed"] != 1:
        words.append(f"speed {condition['speed']:g}")
    return ", ".join(words)


def about(run: Evaluation) -> str:
    """What a run was on, in words."""
    return ", ".join(filter(None, (short_name(run.info.benchmark), heard(run.info.condition))))


def band(run: Evaluation) -> str:
    """What the intervals of a run are."""
    return f"{100 * run.level:g} % interval"


def _present(estimates: Sequence[Estimate | None]) -> tuple[list[float], list[Estimate]]:
    """Rows and estimates of those that there are."""
    there = [(row, each) for row, each in enumerate(estimates) if each is not None]
    return [float(row) for row, _ in there], [each for _, each in there]


def _look(modality: str) -> Look:
    return MODALITY_LOOKS.get(modality, "third")


def _and(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
