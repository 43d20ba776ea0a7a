"""What can be done with a file of questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tars_rewards._version import __version__
from tars_rewards.errors import TARSError
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.rows import ScoredQuestion
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.work import check_completions, check_prompts

if TYPE_CHECKING:
    from tars_rewards.scoring.scorer import Scorer

Result = TypeVar("Result")


class Task(Protocol[Result]):
    """Turns questions into rows."""

    def settings(self) -> dict[str, Any]:
        """What the rows depend on, apart from the questions."""

    def check(self, question: Question) -> None:
        """Raise InputError if a question lacks something, as far as can be told without opening its media."""

    def run(self, questions: Sequence[Question]) -> list[Result | TARSError]:
        """Results of some questions, or their errors in their place."""

    def rows(self, result: Result) -> list[dict[str, Any]]:
        """Rows of one result."""


class ScoreTask:
    """Score the completions of questions."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def settings(self) -> dict[str, Any]:
        """Model, reward and prompts."""
        return {"task": "score", **_scorer_settings(self._scorer), "config": self._scorer.config.to_json()}

    def check(self, question: Question) -> None:
        """There are completions, something to judge them by, and what they answer."""
        check_completions(question, self._scorer.config)
        if self._scorer.model is not None:
            modalities = [name for name, given in question.completions.items() if given]
            check_prompts(question, self._scorer.config, self._scorer.model.family.medium, modalities)

    def run(self, questions: Sequence[Question]) -> list[ScoredQuestion | TARSError]:
        """See `Scorer.score_batch`."""
        return self._scorer.score_batch(questions)

    def rows(self, result: ScoredQuestion) -> list[dict[str, Any]]:
        """See `ScoredQuestion.rows`."""
        return result.rows()


class SampleTask:
    """Sample completions of questions."""

    def __init__(self, scorer: Scorer, sampling: Sampling) -> None:
        self._scorer = scorer
        self._sampling = sampling

    def settings(self) -> dict[str, Any]:
        """Model, prompts and sampling."""
        return {"task": "sample", **_scorer_settings(self._scorer), "sampling": dataclasses.asdict(self._sampling)}

    def check(self, question: Question) -> None:
        """The question is there in both modalities."""
        config, model = self._scorer.config, self._scorer.required_model()
        check_prompts(question, config, model.family.medium, (config.target_modality, config.anchor_modality))

    def run(self, questions: Sequence[Question]) -> list[Question | TARSError]:
        """See `Scorer.sample_batch`."""
        return self._scorer.sample_batch(questions, self._sampling)

    def rows(self, result: Question) -> list[dict[str, Any]]:
        """See `Question.to_row`."""
        return [result.to_row()]


def _scorer_settings(scorer: Scorer) -> Mapping[str, Any]:
    model = scorer.model
    return {
        "tars_rewards": __version__,
        "model": None if model is None else model.model.name_or_path,
        "dtype": None if model is None else str(model.dtype),
        "modalities": [scorer.config.target_modality, scorer.config.anchor_modality],
        "system": scorer.system,
        "instruction": scorer.instruction,
    }
