"""What was said to the same questions, heard and read, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tars_rewards.evaluation.records import EvaluationRow
from tars_rewards.report.clips import Clip, ClipBox
from tars_rewards.report.evaluation_charts import about
from tars_rewards.report.records import SPEECH, TEXT, Evaluation, TrainingRun
from tars_rewards.report.settings import ReportSettings

_TERMS = ("total", "accuracy", "format", "representation", "behavior")
OUTCOMES = {
    (False, True): "Read right, heard wrong",
    (True, False): "Heard right, read wrong",
    (False, False): "Both wrong",
    (True, True): "Both right",
}
"""By whether speech and text are right, in the order shown: what the gap is made of comes first."""


@dataclass(frozen=True)
class Said:
    """One completion."""

    text: str
    correct: bool | None  #: None: not judged
    extraction: str | None
    judged: bool  #: whether an answer was looked for
    notes: tuple[str, ...]  #: tokens, truncated, reward terms


@dataclass(frozen=True)
class Answers:
    """What one run said to a question."""

    run: str
    speech: Said | None
    text: Said | None


@dataclass(frozen=True)
class Card:
    """A question."""

    id: str
    prompt: str
    answer: str | None
    category: str | None
    clip: Clip | None
    answers: Sequence[Answers]


@dataclass(frozen=True)
class Group:
    """Questions with one outcome."""

    title: str
    total: int  #: questions with it
    cards: Sequence[Card]


@dataclass(frozen=True)
class Set:
    """Questions that some runs share."""

    title: str
    note: str
    groups: Sequence[Group]


def evaluation_sets(runs: Sequence[Evaluation], settings: ReportSettings, box: ClipBox) -> list[Set]:
    """Runs that heard the same questions in the same way stand below each other; the last one's outcome sorts them."""
    together: dict[tuple[str, str, str], list[Evaluation]] = {}
    for run in runs:
        condition = {**run.info.condition}
        if condition.get("snr_db") is None:
            condition.pop("seed", None)  # of the noise that there is none of
        key = (run.info.benchmark, run.info.questions, str(sorted(condition.items())))
        together.setdefault(key, []).append(run)
    return [_evaluation_set(of_it, settings, box) for of_it in together.values() if settings.questions]


def _evaluation_set(runs: Sequence[Evaluation], settings: ReportSettings, box: ClipBox) -> Set:
    said = {run.label: _first_samples(run.rows) for run in runs}
    last = runs[-1]
    by_outcome: dict[tuple[bool, bool], list[str]] = {outcome: [] for outcome in OUTCOMES}
    single: list[str] = []
    for question, rows in said[last.label].items():
        if SPEECH in rows and TEXT in rows:
            by_outcome[rows[SPEECH].correct, rows[TEXT].correct].append(question)
        else:
            single.append(question)
    lists = {OUTCOMES[outcome]: ids for outcome, ids in by_outcome.items()} | {"In one modality only": single}
    lists = {title: ids for title, ids in lists.items() if ids}
    chosen = _fairly([len(ids) for ids in lists.values()], settings.questions)
    groups = [
        Group(title, len(ids), [_card(each, runs, said, settings, box) for each in ids[:count]])
        for (title, ids), count in zip(lists.items(), chosen, strict=True)
    ]
    note = (
        f"Sorted by what {last.label} made of them; within a group the first ones of the file, not chosen by hand."
        + (" Of several samples the first is shown." if any(row.sample_id for row in last.rows) else "")
    )
    return Set(about(last), note, groups)


def _first_samples(rows: Iterable[EvaluationRow]) -> dict[str, dict[str, EvaluationRow]]:
    found: dict[str, dict[str, EvaluationRow]] = {}
    for row in rows:
        of_question = found.setdefault(row.id, {})
        if row.modality not in of_question or row.sample_id < of_question[row.modality].sample_id:
            of_question[row.modality] = row
    return found


def _card(
    question: str,
    runs: Sequence[Evaluation],
    said: Mapping[str, Mapping[str, Mapping[str, EvaluationRow]]],
    settings: ReportSettings,
    box: ClipBox,
) -> Card:
    some = next(iter(said[runs[-1].label][question].values()))
    spoken = [(run, said[run.label].get(question, {}).get(SPEECH)) for run in reversed(runs)]
    paths = [run.root / row.audio for run, row in spoken if row is not None and row.audio is not None]
    path = next((path for path in paths if path.is_file()), paths[0] if paths else None)
    clip = None if path is None else box.clip(path)
    answers = []
    for run in runs:
        rows = said[run.label].get(question, {})
        both = [_said(rows[name], settings) if name in rows else None for name in (SPEECH, TEXT)]
        answers.append(Answers(run.label, *both))
    return Card(question, some.prompt, some.answer, some.category, clip, answers)


def _said(row: EvaluationRow, settings: ReportSettings) -> Said:
    notes = [f"{row.tokens} tokens"] if row.tokens is not None else []
    if row.truncated:
        notes.append("cut off at the length limit")
    text = shortened(row.completion, settings.completion_characters)
    return Said(text, row.correct, row.extraction, True, tuple(notes))


def training_sets(runs: Sequence[TrainingRun], settings: ReportSettings, box: ClipBox) -> list[Set]:
    """Rollouts of the first and the last step that was kept, with their rewards."""
    return [_training_set(run, settings, box) for run in runs if run.rollouts and settings.questions]


def _training_set(run: TrainingRun, settings: ReportSettings, box: ClipBox) -> Set:
    steps = sorted({row["step"] for row in run.rollouts})
    shown = list(dict.fromkeys([steps[0], steps[-1]]))
    groups = []
    for step, count in zip(shown, _fairly([settings.questions] * len(shown), settings.questions), strict=True):
        questions: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        for row in run.rollouts:
            if row["step"] == step:
                questions.setdefault(row["id"], {}).setdefault(row["modality"], []).append(row)
        cards = [_rollout_card(name, rows, run.root, settings, box) for name, rows in list(questions.items())[:count]]
        groups.append(Group(f"Step {step}", len(questions), cards))
    note = "Of the rollouts that were kept, those of the first and the last step; the first ones of the file."
    return Set(f"Rollouts of {run.label}", note, groups)


def _rollout_card(
    name: str,
    by_modality: Mapping[str, Sequence[Mapping[str, Any]]],
    root: Path,
    settings: ReportSettings,
    box: ClipBox,
) -> Card:
    spoken = [modality for modality in by_modality if modality != TEXT]
    columns = [by_modality.get(spoken[0] if spoken else SPEECH, ()), by_modality.get(TEXT, ())]
    answers = []
    for index in range(max(map(len, columns))):
        both = [_rolled_out(rows[index], settings) if index < len(rows) else None for rows in columns]
        answers.append(Answers(f"sample {index + 1}", *both))
    some = next(row for rows in columns for row in rows)
    audio = next((row["audio"] for rows in columns for row in rows if isinstance(row.get("audio"), str)), None)
    clip = None if audio is None else box.clip(root / audio)
    return Card(name, str(some.get("prompt") or ""), some.get("answer"), None, clip, answers)


def _rolled_out(row: Mapping[str, Any], settings: ReportSettings) -> Said:
    notes = [f"{term} {row[term]:.3g}" for term in _TERMS if isinstance(row.get(term), int | float)]
    if isinstance(row.get("tokens"), int):
        notes.append(f"{row['tokens']} tokens")
    if row.get("truncated"):
        notes.append("cut off at the length limit")
    accuracy = row.get("accuracy")
    correct = None if accuracy not in (0, 1) else bool(accuracy)
    text = shortened(str(row["completion"]), settings.completion_characters)
    return Said(text, correct, None, False, tuple(notes))


def shortened(text: str, most: int) -> str:
    r"""A text without its middle where it is longer than `most`: the answer stands at the end.

    Example:
        >>> shortened("abcdefghij", 4)
        'ab\n[… 6 characters left out …]\nij'
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def _fairly(sizes: Sequence[int], most: int) -> list[int]:
    """Share `most` among groups of these sizes: as equal as they allow, the first ones get what does not divide.

    Example:
        >>> _fairly([10, 1, 10], 8)
        [4, 1, 3]
    """
    shares = [0] * len(sizes)
    while sum(shares) < min(most, sum(sizes)):
        for index, size in enumerate(sizes):
            if shares[index] < size and sum(shares) < most:
                shares[index] += 1
    return shares
