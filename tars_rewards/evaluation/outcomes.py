"""A run's answers by question, as arrays that statistics are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tars_rewards.errors import InputError
from tars_rewards.evaluation.records import (
    RESULTS,
    RUN,
    EvaluationRow,
    RunInfo,
    questions_fingerprint,
    read_info,
    read_results,
)
from tars_rewards.scoring.journal import fingerprint

if TYPE_CHECKING:
    from jaxtyping import Float

WRITTEN = "text"  #: the modality that the other one is measured against

_SHOWN = 3  # ids that a message names


@dataclass
class Totals:
    """Sums over the rows of one modality."""

    rows: int = 0
    unparsed: int = 0
    truncated: int = 0
    with_tokens: int = 0  #: rows whose length is known
    tokens: int = 0
    timed_tokens: int = 0  #: of the rows whose length and time are known
    seconds: float = 0.0  #: of the same rows

    def add(self, row: EvaluationRow) -> None:
        """Count a row."""
        self.rows += 1
        self.unparsed += row.extraction is None
        self.truncated += row.truncated
        if row.tokens is not None:
            self.with_tokens += 1
            self.tokens += row.tokens
            if row.seconds is not None:
                self.timed_tokens += row.tokens
                self.seconds += row.seconds


class Asked(NamedTuple):
    """What a question is, beside its id."""

    answer: str
    prompt: int  #: fingerprint
    category: str | None


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One run. Arrays are in the order of `questions`, which is that of the ids."""

    directory: str
    info: RunInfo
    questions: Mapping[str, Asked]
    share: Mapping[str, Float[np.ndarray, " questions"]]  #: by modality: share of right answers among the samples
    samples: Mapping[str, float]  #: by modality: samples a question, the mean
    totals: Mapping[str, Totals] = field(repr=False)

    @property
    def spoken(self) -> str | None:
        """The modality beside the written one; None where there is none.

        Raises:
            InputError: There are several.
        """
        others = sorted(set(self.share) - {WRITTEN})
        if len(others) > 1:
            raise InputError(
                f"{self.directory}: expected one modality beside {WRITTEN!r}, got {', '.join(others)}; evaluate them into "
                "directories of their own"
            )
        return others[0] if others else None

    def written(self) -> Float[np.ndarray, " questions"]:
        """Shares of the written modality.

        Raises:
            InputError: The run has none.
        """
        if WRITTEN not in self.share:
            raise InputError(
                f"{self.directory}: expected answers to written questions, got {', '.join(sorted(self.share))} alone; evaluate "
                f"with `--modality {WRITTEN}` or `both`"
            )
        return self.share[WRITTEN]


def read_outcomes(directory: str | os.PathLike[str]) -> Outcomes:
    """Read a run directory; its rows are streamed.

    Raises:
        InputError: A file is missing or corrupt (see `records`), there are no results or not those of all the run's
            questions, or a question was answered in one of the run's modalities only.
    """
    where = os.fspath(directory)
    info = read_info(directory)
    questions: dict[str, Asked] = {}
    answers: dict[str, dict[str, tuple[int, int]]] = {}
    totals: dict[str, Totals] = {}
    for row in read_results(directory):
        questions.setdefault(row.id, Asked(row.answer, fingerprint(row.prompt), row.category))
        right, count = answers.setdefault(row.modality, {}).get(row.id, (0, 0))
        answers[row.modality][row.id] = (right + row.correct, count + 1)
        totals.setdefault(row.modality, Totals()).add(row)
    if not questions:
        raise InputError(f"{where}: expected results, got none; run `tars-rewards evaluate` again for it")
    require_all_results(where, info, {identity: asked.answer for identity, asked in questions.items()})
    halves = [
        f"{modality}: no answer to {_named(missing)}"
        for modality in sorted(answers)
        if (missing := questions.keys() - answers[modality].keys())
    ]
    if halves:
        raise InputError(
            f"{where}: expected every question in {' and '.join(sorted(answers))}, got half a pair for some; finish the run "
            "by the same `tars-rewards evaluate` again:",
            halves,
        )
    ids = sorted(questions)
    share = {
        modality: np.array([each[identity][0] / each[identity][1] for identity in ids])
        for modality, each in answers.items()
    }
    return Outcomes(
        directory=where,
        info=info,
        questions={identity: questions[identity] for identity in ids},
        share=share,
        samples={modality: total.rows / len(ids) for modality, total in totals.items()},
        totals=totals,
    )


def require_all_results(directory: str | os.PathLike[str], info: RunInfo, answers: Mapping[str, str]) -> None:
    """Check that the results are of the questions that the run was on.

    Args:
        directory: The run.
        info: What the run was.
        answers: Right answers by question, as the results have them.

    Raises:
        InputError: They are not: rows have been lost, added or changed.
    """
    if questions_fingerprint(answers.items()) != info.questions:
        raise InputError(
            f"{os.path.join(directory, RESULTS)}: expected results of the run's questions, got those of {len(answers)}, which "
            f"are not the ones that {RUN} tells of: rows have been lost, added or changed; give the file back, or run "
            "`tars-rewards evaluate --overwrite`"
        )


def require_same_questions(runs: Sequence[Outcomes], *, prompts: bool = True) -> None:
    """Check that runs can be compared.

    Args:
        runs: The first is what the others are checked against.
        prompts: Also demand the same system prompt and instruction.

    Raises:
        InputError: Questions, right answers, prompts or extractor differ; it is said which.
    """
    first = runs[0]
    problems = []
    for run in runs[1:]:
        both = f"{first.directory} and {run.directory}"
        settings = {
            "extractor": "answer extractor",
            **({"prompts": "system prompt and instruction"} if prompts else {}),
        }
        for name, label in settings.items():
            here, there = getattr(first.info, name), getattr(run.info, name)
            if here != there:
                problems.append(f"{both}: {label} differ ({here!r} and {there!r})")
        for one, other in ((first, run), (run, first)):
            if alone := one.questions.keys() - other.questions.keys():
                problems.append(f"{both}: only {one.directory} has {_named(alone)}")
        shared = first.questions.keys() & run.questions.keys()
        for index, label in enumerate(("right answers", "prompts")):
            if differing := {each for each in shared if first.questions[each][index] != run.questions[each][index]}:
                problems.append(f"{both}: {label} differ in {_named(differing)}")
    if problems:
        raise InputError(
            "runs that differ in more than the model cannot be compared; evaluate them on the same questions with the same "
            "prompts and extractor:",
            problems,
        )


def _named(ids: Set[str]) -> str:
    shown = ", ".join(sorted(ids)[:_SHOWN])
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{len(ids)} question{'s' if len(ids) != 1 else ''} ({shown}{more})"
