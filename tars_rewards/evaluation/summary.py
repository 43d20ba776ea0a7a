"""What one run says: accuracies with their intervals, the modality gap and how much of it is closed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.evaluation.outcomes import WRITTEN, Outcomes, Totals, read_outcomes, require_same_questions
from tars_rewards.evaluation.records import FORMAT, SUMMARY, write_json
from tars_rewards.evaluation.statistics import Estimate, QuestionBootstrap, Resampling, ratio

if TYPE_CHECKING:
    from rich.console import RenderableType


_BACKBONE = "text of the backbone"  # a column beside those of the modalities


@dataclass(frozen=True)
class ModalitySummary:
    """One modality of a run. Rates are shares of the rows."""

    accuracy: Estimate  #: mean over questions of the share of right answers
    rows: int  #: questions times samples
    unparsed: float  #: no answer found in the completion, which then is wrong
    truncated: float
    mean_tokens: float | None  #: length of a completion
    tokens_per_second: float | None  #: tokens over seconds, both summed over the rows


@dataclass(frozen=True)
class CategorySummary:
    """One category of questions; small ones have wide intervals."""

    questions: int
    accuracy: Mapping[str, Estimate]  #: by modality
    gap: Estimate | None  #: None where the run has one modality


@dataclass(frozen=True)
class Summary:
    """One run. Accuracies, gap and ratio are shares (0.615, not 61.5); the recovery rate is in percent, as in the paper."""

    model: str
    benchmark: str
    condition: Mapping[str, Any]
    questions: int
    modalities: Mapping[str, ModalitySummary]
    gap: Estimate | None  #: written minus spoken accuracy; None where the run has one modality
    own_text_ratio: Estimate | None  #: spoken over written accuracy of the same run: stricter than the recovery rate
    recovery_rate: Estimate | None
    """MRR, 100 x spoken accuracy / denominator. The denominator's own uncertainty is in the interval, paired by question."""
    denominator: float | None  #: accuracy that the recovery rate is measured against
    denominator_name: str | None  #: where that accuracy comes from, to be printed with the rate
    categories: Mapping[str, CategorySummary]
    resampling: Resampling  #: how the intervals were made

    def to_json(self) -> dict[str, Any]:
        """Content of `summary.json`."""
        return {"format": FORMAT, **asdict(self)}


def summarize(
    directory: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] | None = None,
    resampling: Resampling | None = None,
) -> Summary:
    """Summarize a run directory.

    Args:
        directory: The run.
        backbone: Run directory of the original text backbone on the same questions: its written accuracy is then the
            recovery rate's denominator, as in the paper. None: the run's own written accuracy.
        resampling: Of the intervals.

    Raises:
        InputError: A run cannot be read, or the backbone's was on other questions, with another extractor, or not written.
    """
    run = read_outcomes(directory)
    return summarize_outcomes(run, None if backbone is None else read_outcomes(backbone), resampling)


def summarize_outcomes(
    run: Outcomes, backbone: Outcomes | None = None, resampling: Resampling | None = None
) -> Summary:
    """The same of runs that have been read."""
    resampling = resampling or Resampling()
    spoken = run.spoken
    # The spoken modality stands first: one side of every comparison.
    columns = {name: run.share[name] for name in (spoken, WRITTEN) if name is not None and name in run.share}
    paired = spoken is not None and WRITTEN in columns
    reference, denominator_name = (WRITTEN, f"own {WRITTEN}") if paired else (None, None)
    samples = min(run.samples.values())
    if backbone is not None:
        require_same_questions([run, backbone], prompts=False)
        written = backbone.written()
        if spoken is not None:
            reference, denominator_name = _BACKBONE, f"{WRITTEN} of {backbone.info.model} ({backbone.directory})"
            columns[reference] = written
            samples = min(samples, backbone.samples[WRITTEN])
    answers = QuestionBootstrap(columns, samples=samples, resampling=resampling)
    return Summary(
        model=run.info.model,
        benchmark=run.info.benchmark,
        condition=dict(run.info.condition),
        questions=len(run.questions),
        modalities={
            name: _modality(_accuracy(answers, name), run.totals[name]) for name in columns if name != _BACKBONE
        },
        gap=_gap(answers, spoken) if paired and spoken else None,
        own_text_ratio=_ratio(answers, spoken, WRITTEN) if paired and spoken else None,
        recovery_rate=_ratio(answers, spoken, reference, times=100.0) if spoken and reference else None,
        denominator=None if reference is None else float(columns[reference].mean()),
        denominator_name=denominator_name,
        categories=_categories(run, spoken, resampling),
        resampling=resampling,
    )


def write_summary(directory: str | os.PathLike[str], summary: Summary) -> None:
    """Write `summary.json`."""
    write_json(Path(directory) / SUMMARY, summary.to_json())


def summary_table(summary: Summary) -> RenderableType:
    """The summary for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    level = f"{100 * summary.resampling.level:g} % interval"
    figures = Table(
        title=f"{escape(summary.model)} on {escape(summary.benchmark)}: {summary.questions} questions",
        title_justify="left",
    )
    for name, justify in (("", "left"), ("value", "right"), (level, "right")):
        figures.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, modality in summary.modalities.items():
        figures.add_row(f"{name} accuracy", *cells(modality.accuracy))
    if summary.gap is not None and summary.own_text_ratio is not None:
        figures.add_row(f"gap ({WRITTEN} - {next(iter(summary.modalities))})", *cells(summary.gap))
        figures.add_row(f"own-{WRITTEN} ratio", *cells(summary.own_text_ratio))
    if summary.recovery_rate is not None:
        figures.add_row("MRR", *cells(summary.recovery_rate, digits=2))
    parts: list[RenderableType] = [figures]
    if summary.recovery_rate is not None:
        parts.append(
            f"MRR = 100 x spoken accuracy / {shown(summary.denominator)}, accuracy of {escape(str(summary.denominator_name))}"
        )
    generation = Table("modality", "rows", "unparsed", "truncated", "tokens, mean", "tokens/s")
    for name, each in summary.modalities.items():
        generation.add_row(
            name, str(each.rows), shown(each.unparsed), shown(each.truncated), shown(each.mean_tokens, 1),
            shown(each.tokens_per_second, 1),
        )  # fmt: skip
    parts.append(generation)
    if summary.categories:
        names = list(summary.modalities)
        categories = Table("category", "questions", *names, *(["gap", level] if summary.gap is not None else []))
        for name, category in summary.categories.items():
            values = [shown(category.accuracy[modality].value) for modality in names]
            categories.add_row(
                escape(name), str(category.questions), *values, *(cells(category.gap) if category.gap else ())
            )
        parts.append(categories)
    return Group(*parts)


def cells(estimate: Estimate, digits: int = 3, *, signed: bool = False) -> tuple[str, str]:
    """An estimate as two cells of a table: its value, its interval."""
    if estimate.value is None:
        return "-", "-"
    return (
        shown(estimate.value, digits, signed=signed),
        f"[{shown(estimate.low, digits, signed=signed)}, {shown(estimate.high, digits, signed=signed)}]",
    )


def shown(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number as a table shows it; "-" where it does not exist."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def _accuracy(answers: QuestionBootstrap, name: str) -> Estimate:
    return answers.estimate(lambda mean: mean[name])


def _gap(answers: QuestionBootstrap, spoken: str) -> Estimate:
    return answers.estimate(lambda mean: mean[WRITTEN] - mean[spoken])


def _ratio(answers: QuestionBootstrap, part: str, whole: str, times: float = 1.0) -> Estimate:
    return answers.estimate(lambda mean: times * ratio(mean[part], mean[whole]))


def _modality(accuracy: Estimate, totals: Totals) -> ModalitySummary:
    return ModalitySummary(
        accuracy=accuracy,
        rows=totals.rows,
        unparsed=totals.unparsed / totals.rows,
        truncated=totals.truncated / totals.rows,
        mean_tokens=totals.tokens / totals.with_tokens if totals.with_tokens else None,
        tokens_per_second=totals.timed_tokens / totals.seconds if totals.seconds else None,
    )


def _categories(run: Outcomes, spoken: str | None, resampling: Resampling) -> dict[str, CategorySummary]:
    """By category, in alphabetical order; questions without one are in none."""
    of_question = np.array([asked.category or "" for asked in run.questions.values()])
    found = {}
    for category in sorted(set(of_question.tolist()) - {""}):
        here = of_question == category
        columns = {name: run.share[name][here] for name in (spoken, WRITTEN) if name is not None and name in run.share}
        answers = QuestionBootstrap(columns, samples=min(run.samples.values()), resampling=resampling)
        found[category] = CategorySummary(
            questions=int(here.sum()),
            accuracy={name: _accuracy(answers, name) for name in columns},
            gap=_gap(answers, spoken) if spoken is not None and len(columns) > 1 else None,
        )
    return found
