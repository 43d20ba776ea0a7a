"""A question on its way through the scorer, and what is checked before and between its stations."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from tars_rewards.answers import normalize_answer
from tars_rewards.errors import InputError, ScoringError, TARSError
from tars_rewards.protocol import Rollout
from tars_rewards.scoring.question import MEDIA, Completion, Question

if TYPE_CHECKING:
    from tars_rewards.config import TARSConfig
    from tars_rewards.scoring.forward import Measurement
    from tars_rewards.speech.model import Prompt

FIRST = 8
"""Items that are worked on together at first."""
_MOST = 64  # so that prompts, states and clips of no more questions than that are in memory
_SHORT, _LONG = 10.0, 60.0  # seconds: below, more items at a time make fuller batches; above, results come too seldom

T = TypeVar("T")


@dataclass
class Piece:
    """A completion on its way: its prompt and tokens, if there is a model, and then what the forward pass told."""

    rollout: Rollout
    prompt: Prompt | None
    tokens: tuple[int, ...]
    measurement: Measurement | None = None

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.tokens) + (0 if self.prompt is None else len(self.prompt.token_ids))


@dataclass(frozen=True)
class Work:
    """A question on its way."""

    question: Question
    pieces: list[Piece]

    def rollouts(self, *, with_states: bool) -> list[Rollout]:
        """Its rollouts, with the hidden states that were measured."""
        if not with_states:
            return [piece.rollout for piece in self.pieces]
        return [
            replace(piece.rollout, hidden_states=piece.measurement.pooled)
            for piece in self.pieces
            if piece.measurement is not None
        ]


def check_completions(question: Question, config: TARSConfig) -> None:
    """Check that there is something to score, and something to judge it by.

    Raises:
        InputError: With one problem for each field.
    """
    modalities = (config.target_modality, config.anchor_modality)
    problems = [
        f"field 'completions.{name}': expected the modalities {' and '.join(modalities)}"
        for name in question.completions
        if name not in modalities
    ]
    given = [completion for name in modalities for completion in question.completions.get(name, ())]
    if not given and not problems:
        problems.append("field 'completions': expected at least one completion, got none; sample some first")
    if any(completion.correct is None for completion in given) and not normalize_answer(question.answer or ""):
        expected = "expected the right answer, with a letter or a digit in it, or 'correct' with each completion"
        shown = "nothing" if question.answer is None else repr(question.answer)
        problems.append(f"field 'answer': {expected}, got {shown}")
    if problems:
        raise InputError(f"question {question.id!r}:", problems)


def check_prompts(question: Question, config: TARSConfig, medium: str, modalities: Iterable[str]) -> None:
    """Check that the question is there as those see or hear it whose completions it has or is to have.

    Args:
        question: The question.
        config: Names the two modalities.
        medium: What the model takes beside text: "audio" or "image".
        modalities: Modalities with completions.

    Raises:
        InputError: With one problem for each field.
    """
    problems = []
    if config.anchor_modality in modalities and not question.prompt:
        problems.append(f"field 'prompt': expected the written question, for the modality {config.anchor_modality!r}")
    if config.target_modality in modalities and getattr(question, medium) is None:
        other = [name for name in MEDIA if getattr(question, name) is not None]
        problems.append(
            f"field {medium!r}: expected what this model takes for the modality {config.target_modality!r}, got "
            f"{other[0] if other else 'nothing'}"
        )
    if problems:
        raise InputError(f"question {question.id!r}:", problems)


def about(question: Question, error: TARSError) -> TARSError:
    """Say whose an error is; the error itself is its cause."""
    named: TARSError
    if isinstance(error, ScoringError):
        named = ScoringError(f"question {question.id!r}: {error}")
    else:  # what came before the model ran: something is wrong with the question
        problems = (error.problems or (error.message,)) if isinstance(error, InputError) else (str(error),)
        named = InputError(f"question {question.id!r}:", problems)
    named.__cause__ = error
    return named


def distinct_ids(work: Mapping[int, Work]) -> Iterator[dict[int, Work]]:
    """Groups of questions in which no id occurs twice: pairs are told apart by it."""
    waiting = dict(work)
    while waiting:
        group: dict[str, int] = {}
        for index, each in waiting.items():
            group.setdefault(each.question.id, index)
        yield {index: waiting.pop(index) for index in group.values()}


def paced(items: Iterable[T]) -> Iterator[list[T]]:
    """Some items at a time, read as they are needed: as many as take some seconds until the next ones are asked for.

    Raises:
        InputError: An item cannot be read; those before it have been yielded.
    """
    size, unread = FIRST, iter(items)
    while True:
        chunk: list[T] = []
        try:
            chunk.extend(islice(unread, size))
        except InputError:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        begin = time.monotonic()
        yield chunk
        seconds = time.monotonic() - begin
        if seconds < _SHORT:
            size = min(2 * size, _MOST)
        elif seconds > _LONG:
            size = max(size // 2, 1)


def completed(question: Question, drawn: Mapping[str, Sequence[Completion | ScoringError]]) -> Question | TARSError:
    """The question with these completions by modality in the place of its own, or the error that is among them."""
    completions: dict[str, list[Completion]] = {modality: [] for modality in drawn}
    for modality, several in drawn.items():
        for each in several:
            if isinstance(each, ScoringError):
                return about(question, each)
            completions[modality].append(each)
    return replace(question, completions=completions)
