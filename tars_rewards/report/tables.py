"""Tables of the page, as text. Accuracies are in percent, gaps in points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tars_rewards.drift.published import SOURCE
from tars_rewards.evaluation.benchmarks import BENCHMARKS
from tars_rewards.report.evaluation_charts import band, by_benchmark, heard
from tars_rewards.report.published import ABLATION, MODELS, PublishedModel, published_set
from tars_rewards.report.records import SPEECH, TEXT, Comparison, Estimate, Evaluation

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A cell: a figure, and its interval or what belongs to it."""

    text: str
    detail: str = ""

    @property
    def empty(self) -> bool:
        """There is no such figure."""
        return self.text == NONE


@dataclass(frozen=True)
class Row:
    """A row; its first cell heads it."""

    cells: Sequence[Cell]
    published: bool = False


@dataclass(frozen=True)
class Body:
    """Rows under a title."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table."""

    caption: str
    columns: Sequence[str]
    bodies: Sequence[Body]
    note: str = ""


def percent(estimate: Estimate | None, *, times: float = 100.0, digits: int = 1, signed: bool = False) -> Cell:
    """A figure with its interval below."""
    if estimate is None or estimate.value is None:
        return Cell(NONE)

    def shown(value: float | None) -> str:
        return "?" if value is None else f"{times * value:{'+' if signed else ''}.{digits}f}".replace("-", "−")

    if estimate.low is None and estimate.high is None:
        return Cell(shown(estimate.value))
    return Cell(shown(estimate.value), f"{shown(estimate.low)} to {shown(estimate.high)}")


def headline(runs: Sequence[Evaluation], *, published: bool) -> Table:
    """Accuracies, gap, recovery rate and own-text ratio by benchmark, with the published ones where there are any."""
    bodies = []
    for benchmark, of_it in by_benchmark(runs).items():
        rows = [
            Row(
                [
                    Cell(run.label, ", ".join(filter(None, (run.info.model, heard(run.info.condition))))),
                    Cell(str(run.questions)),
                    percent(run.accuracy.get(SPEECH)),
                    percent(run.accuracy.get(TEXT)),
                    percent(run.gap),
                    _recovery(run),
                    percent(run.own_ratio),
                ]
            )
            for run in of_it
        ]
        name = published_set(benchmark) if published else None
        rows += [_published_row(model, *getattr(model, name)) for model in MODELS] if name else []
        bodies.append(Body(benchmark, rows))
    levels = " and ".join(dict.fromkeys(band(run) for run in runs))
    note = (
        f"Accuracies and own-text ratio (speech / text accuracy of the same run) in percent, gap (text − speech) in points, "
        f"each with its {levels} (bootstrap by question). MRR = 100 × speech accuracy / the accuracy named below it."
    )
    if any(row.published for body in bodies for row in body.rows):
        note += (
            f" Rows marked “published” are from {SOURCE.removeprefix('published, ')}, not measured here: other models, "
            "other software, no intervals. Their gaps and ratios follow from their accuracies; "
            "their MRR is of averages over sets, at the end of this page."
        )
    elif published:
        note += " None of these runs is on MMSU or OpenBookQA: the published figures at the end cannot be compared with them."
    note += " ".join(["", *_reservations(runs, published)])
    columns = ("Run", "Questions", "Speech", "Text", "Gap", "MRR", "Own-text ratio")
    return Table("Accuracy and the modality gap", columns, bodies, note)


def _reservations(runs: Sequence[Evaluation], published: bool) -> list[str]:
    """What to bear in mind of some runs."""
    found = []
    for run in runs:
        whole = BENCHMARKS.get(run.info.benchmark)
        if whole is not None and run.questions != whole.questions:
            found.append(
                f"{run.label} has results of {run.questions} of the {whole.questions} questions of {run.info.benchmark}"
                + (", and is not comparable with published figures." if published else ".")
            )
        if run.left_out:
            found.append(f"Of {run.label} {run.left_out} bad rows were left out.")
    return found


def _recovery(run: Evaluation) -> Cell:
    cell = percent(run.recovery_rate, times=1.0)
    if run.denominator is None or cell.text == NONE:
        return cell
    of = f"of {100 * run.denominator:.1f}, {run.denominator_name}"
    return Cell(cell.text, f"{cell.detail}; {of}" if cell.detail else of)


def _published_row(model: PublishedModel, speech: float, text: float | None) -> Row:
    gap = NONE if text is None else f"{text - speech:.1f}".replace("-", "−")
    ratio = NONE if text is None else f"{100 * speech / text:.1f}"
    cells = [model.name, NONE, f"{speech:.1f}", NONE if text is None else f"{text:.1f}", gap, NONE, ratio]
    return Row([Cell(cells[0], SOURCE), *map(Cell, cells[1:])], published=True)


def conduct(runs: Sequence[Evaluation]) -> Table:
    """How completions came about."""
    rows = [
        Row(
            [
                Cell(run.label, modality),
                Cell(str(each["rows"])),
                Cell(f"{100 * each['unparsed']:.1f} %"),
                Cell(f"{100 * each['truncated']:.1f} %"),
                Cell(_number(each["mean_tokens"])),
                Cell(_number(each["tokens_per_second"])),
            ]
        )
        for run in runs
        for modality, each in run.conduct.items()
    ]
    columns = ("Run", "Completions", "Unparsed", "Cut off", "Tokens, mean", "Tokens/s")
    note = "Unparsed: no answer was found in the completion, which then counts as wrong. Cut off: at the length limit."
    return Table("Length, speed and unparsed completions", columns, [Body("", rows)], note)


def categories(run: Evaluation) -> Table:
    """Accuracy and gap by category of one run."""
    rows = [
        Row(
            [
                Cell(each.name),
                Cell(str(each.questions)),
                percent(each.accuracy.get(SPEECH)),
                percent(each.accuracy.get(TEXT)),
                percent(each.gap),
            ]
        )
        for each in run.categories
    ]
    note = f"Percent and points, with {band(run)}s. Small categories have wide intervals."
    return Table(
        f"Categories of {run.label}", ("Category", "Questions", "Speech", "Text", "Gap"), [Body("", rows)], note
    )


def comparison(found: Comparison) -> Table:
    """Paired differences."""
    names = {"gap": "Gap (text − speech)"}
    bodies = []
    for quantity in dict.fromkeys(each.quantity for each in found.differences):
        rows = [
            Row(
                [
                    Cell(each.arm, f"less {found.first}"),
                    percent(each.estimate, signed=True),
                    Cell(NONE if each.only_arm is None else f"{each.only_arm} : {each.only_first}"),
                    Cell(_p(each.p), each.test),
                    Cell(_p(each.p_holm)),
                ]
            )
            for each in found.differences
            if each.quantity == quantity
        ]
        bodies.append(Body(names.get(quantity, f"{quantity.capitalize()} accuracy"), rows))
    count = len(found.arms) - 1
    arms = f"{count} arm{'s' if count > 1 else ''}"
    note = (
        f"In points, paired on the same {found.questions} questions, with {100 * found.level:g} % interval. Holm: corrected "
        f"for {arms} compared with the first, for each quantity by itself."
    )
    columns = ("Arm", "Difference", "Only this : only first right", "p", "p (Holm)")
    return Table(f"Against {found.first}", columns, bodies, note)


def published_tables() -> list[Table]:
    """All published figures."""
    rows = [
        Row([Cell(each.name), *(Cell(_pair(pair)) for pair in (each.mmsu, each.obqa, each.average)),
             Cell(f"{each.recovery_rate:.2f}")], published=True)
        for each in MODELS
    ]  # fmt: skip
    note = "Accuracy in percent, speech / text. MRR against the original text backbone. No intervals were published."
    first = Table(f"Models ({SOURCE})", ("Model", "MMSU", "OpenBookQA", "Average", "MRR"), [Body("", rows)], note)
    rows = [
        Row([Cell(name), Cell(f"{speech:.2f}"), Cell(f"{rate:.2f}")], published=True) for name, speech, rate in ABLATION
    ]
    note = "Of Phi-4-MM, average of MMSU and OpenBookQA."
    second = Table(f"Ablation ({SOURCE})", ("Training", "Speech accuracy, %", "MRR"), [Body("", rows)], note)
    return [first, second]


def settings_table(title: str, content: Mapping[str, Any]) -> Table:
    """All entries of a nested mapping."""
    rows = [Row([Cell(name), Cell(value)]) for name, value in _flat(content)]
    return Table(title, ("Setting", "Value"), [Body("", rows)])


def _flat(content: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", value if isinstance(value, str) else json.dumps(value, default=str)))
    return found


def _pair(pair: tuple[float, float | None]) -> str:
    speech, text = pair
    return f"{speech:.2f} / {NONE if text is None else f'{text:.2f}'}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
