"""Charts of training runs: reward terms by step and modality."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import NormalDist, mean, stdev

from tars_rewards.report.charts import MODALITY_LOOKS, Chart, Series
from tars_rewards.report.records import SPEECH, TEXT, Estimate, TrainingRun

_TERM = re.compile(r"tars/(?P<term>[^/]+)/(?P<modality>[^/]+)/mean")
_VALIDATION = re.compile(r"(?P<before>.*tars/)(?P<modality>[^/]+)_accuracy")
_GAP, _WITHOUT, _QUESTIONS = "tars/reward_gap", "tars/pairs/without_reference", "tars/pairs/count"
_COSINES = ("representation", "behavior")
_ORDER = ("total", "accuracy", "format", "representation", "behavior")
_LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + _LEVEL / 2)
BANDS = (
    "Intervals of a step's mean count its questions, not its completions, as if all completions of a question were one: "
    "rather too wide than too narrow. Of accuracy and format they are Wilson's."
)
_NOT_TERMS = ("id", "modality", "sample_id", "completion", "answer", "truncated", "reference", "log_prob", "tokens", "step",
              "prompt", "audio")  # fmt: skip


def training_charts(run: TrainingRun) -> list[Chart]:
    """Every term by step and modality, the gap in reward, the share of questions without a reference, and validation."""
    means: dict[str, dict[str, None]] = {}
    for _, metrics in run.steps:
        for found in filter(None, map(_TERM.fullmatch, metrics)):
            means.setdefault(found["term"], {})[found["modality"]] = None
    if not means:
        return _rollout_charts(run)
    caption = "Mean over the completions of a step, with 95 % interval; n = questions of the step."
    charts = [
        Chart(
            f"reward-{term}-{run.label}",
            f"Reward: {term}",
            caption,
            "step",
            term,
            [
                Series(modality, *_along(run, f"tars/{term}/{modality}"), MODALITY_LOOKS.get(modality, "third"))
                for modality in means[term]
            ],
            limits=(-0.02, 1.02) if term in ("accuracy", "format") else None,
        )
        for term in sorted(means, key=_place)
    ]
    return [*charts, *_gap_chart(run), *_reference_chart(run), *_validation_charts(run)]


def _gap_chart(run: TrainingRun) -> list[Chart]:
    points = {step: Estimate(metrics[_GAP]) for step, metrics in run.steps if _GAP in metrics}
    caption = "Mean base reward of text less that of speech. The metrics hold no spread of it, so there is no interval."
    return _alone(f"reward-gap-{run.label}", "Gap in base reward", "text − speech", caption, points)


def _reference_chart(run: TrainingRun) -> list[Chart]:
    points = {}
    for step, metrics in run.steps:
        if (share := metrics.get(_WITHOUT)) is not None:
            n = metrics.get(_QUESTIONS)
            points[step] = Estimate(share, *_wilson(share, n), int(n)) if n else Estimate(share)
    caption = (
        "Share of a step's questions without a correct text completion, whose alignment terms are absent, with 95 % interval "
        "(Wilson)."
    )
    return _alone(f"without-reference-{run.label}", "Questions without a reference", "share", caption, points)


def _alone(name: str, title: str, label: str, caption: str, points: Mapping[int, Estimate]) -> list[Chart]:
    series = Series(label, [float(step) for step in points], list(points.values()), "change")
    return [Chart(name, title, caption, "step", label, [series], zero=True)] if points else []


def _along(run: TrainingRun, key: str) -> tuple[list[float], list[Estimate]]:
    there = [(step, metrics) for step, metrics in run.steps if f"{key}/mean" in metrics]
    return [float(step) for step, _ in there], [_estimate(metrics, key) for _, metrics in there]


def _estimate(metrics: Mapping[str, float], key: str) -> Estimate:
    value, std, count = metrics[f"{key}/mean"], metrics.get(f"{key}/std"), metrics.get(f"{key}/count")
    if not count:
        return Estimate(value)
    n = min(count, metrics.get(_QUESTIONS, count))
    if key.split("/")[1] in ("accuracy", "format") and 0.0 <= value <= 1.0:
        return Estimate(value, *_wilson(value, n), int(n))
    if std is None or n < 2:
        return Estimate(value, n=int(n))
    reach = _Z * std / math.sqrt(n - 1)  # `std` is the population's
    low, high = value - reach, value + reach
    if key.split("/")[1] in _COSINES:
        low, high = max(-1.0, low), min(1.0, high)
    return Estimate(value, low, high, int(n))


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a share, which need not be a whole number of n."""
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _validation_charts(run: TrainingRun) -> list[Chart]:
    """Accuracy on held-out questions, where it was measured while training."""
    series: dict[str, dict[str, list[tuple[int, Estimate]]]] = {}
    for step, metrics in run.steps:
        for found in filter(None, map(_VALIDATION.fullmatch, metrics)):
            before, modality = found["before"], found["modality"]
            n = metrics.get(f"{before}{modality}_n")
            value = metrics[found[0]]
            point = Estimate(value, *_wilson(value, n), int(n)) if n else Estimate(value)
            series.setdefault(before, {}).setdefault(modality, []).append((step, point))
    charts = []
    for number, (before, by_modality) in enumerate(series.items(), start=1):
        lines = [
            Series(
                name,
                [float(step) for step, _ in points],
                [each for _, each in points],
                MODALITY_LOOKS.get(name, "third"),
            )
            for name, points in by_modality.items()
            if name in (SPEECH, TEXT)
        ]
        caption = f"Metrics {before}…_accuracy. Bands: 95 % interval (Wilson), where the number of answers was logged."
        if lines:
            charts.append(Chart(f"validation-{number}-{run.label}", "Accuracy in validation", caption, "step", "accuracy",
                                lines))  # fmt: skip
    return charts


def _rollout_charts(run: TrainingRun) -> list[Chart]:
    """The same from rollouts that were kept, where there are no metrics."""
    terms = [name for name in dict.fromkeys(name for row in run.rollouts for name in row) if name not in _NOT_TERMS]
    charts = []
    for term in sorted(terms, key=_place):
        values: dict[str, dict[int, dict[str, list[float]]]] = {}
        for row in run.rollouts:
            if isinstance(row.get(term), int | float):
                step = values.setdefault(row["modality"], {}).setdefault(row["step"], {})
                step.setdefault(row["id"], []).append(float(row[term]))
        series = [
            Series(modality, [float(step) for step in sorted(by_step)],
                   [_over_questions(list(by_step[step].values())) for step in sorted(by_step)],
                   MODALITY_LOOKS.get(modality, "third"))
            for modality, by_step in values.items()
        ]  # fmt: skip
        caption = (
            "From the rollouts that were kept, a sample of each step: mean over questions, with 95 % interval (Student's t) where "
            "a step has two or more."
        )
        if series:
            charts.append(Chart(f"reward-{term}-{run.label}", f"Reward: {term}", caption, "step", term, series))
    return charts


def _over_questions(groups: Sequence[Sequence[float]]) -> Estimate:
    values = [mean(group) for group in groups]
    value = mean(values)
    if len(values) < 2:
        return Estimate(value, n=len(values))
    from scipy.stats import t

    reach = float(t.ppf(0.5 + _LEVEL / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Estimate(value, value - reach, value + reach, len(values))


def _place(term: str) -> tuple[int, str]:
    return (_ORDER.index(term) if term in _ORDER else len(_ORDER), term)
