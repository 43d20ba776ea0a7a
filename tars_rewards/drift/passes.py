"""Forward passes over all questions, some at a time, and what stays of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tars_rewards.drift.states import ForcedStates, Forcing, force
from tars_rewards.errors import ScoringError, TARSError
from tars_rewards.scoring.forward import Measurement, measure
from tars_rewards.scoring.work import about

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from tars_rewards.config import TARSConfig
    from tars_rewards.scoring.forward import TokenBudget
    from tars_rewards.scoring.preparation import Preparation
    from tars_rewards.scoring.question import Completion, Question
    from tars_rewards.scoring.work import Piece
    from tars_rewards.speech.model import Prompt, SpeechModel

_CHUNK = 16  # questions whose encoded clips are in memory at once


def partners(count: int, seed: int) -> Int[np.ndarray, " questions"]:
    """A partner for each question, none its own: all questions in one circle of random order."""
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, np.int64)
    partner[order] = np.roll(order, -1)
    return partner


class Subject:
    """A model under measurement.

    Args:
        model: The model.
        preparation: Makes its prompts.
        budget: Of its forward passes.
        config: Names the modalities.
    """

    def __init__(
        self,
        model: SpeechModel,
        preparation: Preparation,
        budget: TokenBudget,
        config: TARSConfig,
    ) -> None:
        self.model: SpeechModel = model
        self._preparation = preparation
        self._budget = budget
        self.config = config

    def pieces(self, question: Question, forced: Completion) -> dict[str, list[Piece]]:
        """Prompts and tokens by modality; the forced completion is the last one of the anchor modality.

        Raises:
            TARSError: Something is wrong with the question.
        """
        target, anchor = self.config.target_modality, self.config.anchor_modality
        # A verdict on the completions is needed to score them, but not here.
        given = {
            target: [replace(each, correct=False) for each in question.completions[target]],
            anchor: [replace(each, correct=False) for each in (*question.completions[anchor], forced)],
        }
        work = self._preparation.work(replace(question, completions=given))
        return {name: [each for each in work.pieces if each.rollout.modality == name] for name in given}

    def run_forcings(self, jobs: list[Forcing], means: Tensor | None) -> list[ForcedStates | ScoringError]:
        """Forced states of some completions, or errors in their place."""
        return self._budget.run(jobs, [job.length for job in jobs], lambda batch: force(self.model, batch, means))

    def run_rollouts(self, jobs: list[Piece]) -> list[Measurement | ScoringError]:
        """Measurements of some of the model's own completions, or errors in their place."""

        def run(batch: list[Piece]) -> list[Measurement | ScoringError]:
            prompts = [piece.prompt for piece in batch if piece.prompt is not None]
            return measure(self.model, prompts, [piece.tokens for piece in batch])

        return self._budget.run(jobs, [piece.length for piece in jobs], run)

    def spoken(self, question: Question) -> Prompt:
        """The spoken prompt alone."""
        target = self.config.target_modality
        return self._preparation.prompts(question, [target])[target]

    def forget(self) -> None:
        """Drop the clips that were encoded."""
        self.model.forget()

    def release(self) -> None:
        """Let go of the model, so that another fits the memory."""
        del self.model, self._preparation
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Pass:
    """One pass over all questions, and what it leaves of each, in their order.

    Args:
        subject: Whose states are taken.
        questions: At least two, with as many completions of both modalities.
        forced: The completion of each that is fed to the model after the written prompt, the spoken one, and the partner's
            spoken one.
        partner: See `partners`.
    """

    def __init__(
        self,
        subject: Subject,
        questions: Sequence[Question],
        forced: Sequence[Completion],
        partner: Int[np.ndarray, " questions"],
    ) -> None:
        self._subject = subject
        self._questions = questions
        self._forced = forced
        self._partner = partner
        self._errors: dict[str, TARSError] = {}
        count = len(questions)
        self.pooled: list[Tensor] = [torch.empty(0)] * count  #: [prompts, layers, hidden] of the forced completion
        self.cosine: list[Float[np.ndarray, "pairs tokens layers"]] = [np.empty(0)] * count  #: matched, mismatched
        self.own: list[Tensor] = [torch.empty(0)] * count  #: [modalities, samples, layers, hidden], speech first
        self.said: list[list[list[tuple[int, ...]]]] = [[]] * count  #: tokens by modality and sample, speech first

    def run(self, bar: Any, *, rollouts: bool, means: Tensor | None) -> dict[str, TARSError]:
        """Go over the questions.

        Args:
            bar: Progress.
            rollouts: Take the states of the model's own completions too.
            means: Subtracted before tokens are compared, see `force`.

        Returns:
            The errors of questions that failed; the others' states are then of no use.
        """
        for chunk in self._chunks():
            try:
                self._work(chunk, rollouts=rollouts, means=means)
            finally:
                self._subject.forget()
            bar.update(len(chunk))
        return self._errors

    def _chunks(self) -> Iterator[list[int]]:
        """Questions around the circle of partners, so that a chunk's partners are in it, but for the last one's."""
        circle = [0]
        while len(circle) < len(self._questions):
            circle.append(int(self._partner[circle[-1]]))
        for start in range(0, len(circle), _CHUNK):
            yield circle[start : start + _CHUNK]

    def _work(self, chunk: list[int], *, rollouts: bool, means: Tensor | None) -> None:
        pieces: dict[int, dict[str, list[Piece]]] = {}
        for index in chunk:
            if (found := self._pieces(index)) is not None:
                pieces[index] = found
        jobs = {index: job for index, each in pieces.items() if (job := self._forcing(index, each, pieces)) is not None}
        for index, states in zip(jobs, self._subject.run_forcings(list(jobs.values()), means), strict=True):
            if isinstance(states, ScoringError):
                self._failed(index, states)
            else:
                self.pooled[index], self.cosine[index] = states.pooled, states.cosine.double().numpy()
        if rollouts:
            self._rollouts(pieces)

    def _rollouts(self, pieces: Mapping[int, Mapping[str, list[Piece]]]) -> None:
        target, anchor = self._subject.config.target_modality, self._subject.config.anchor_modality
        jobs = [(index, piece) for index, each in pieces.items() for piece in (*each[target], *each[anchor][:-1])]
        states: dict[int, list[Tensor]] = {index: [] for index in pieces}
        done = self._subject.run_rollouts([piece for _, piece in jobs])
        for (index, _), measurement in zip(jobs, done, strict=True):
            if isinstance(measurement, ScoringError):
                self._failed(index, measurement)
            else:
                states[index].append(measurement.pooled)
        for index, each in pieces.items():
            samples = len(each[target])
            if len(states[index]) == 2 * samples:
                self.own[index] = torch.stack(states[index]).reshape(2, samples, *states[index][0].shape)
                self.said[index] = [[piece.tokens for piece in each[name]][:samples] for name in (target, anchor)]

    def _pieces(self, index: int) -> dict[str, list[Piece]] | None:
        try:
            return self._subject.pieces(self._questions[index], self._forced[index])
        except TARSError as error:
            self._failed(index, error)
            return None

    def _forcing(
        self, index: int, own: Mapping[str, list[Piece]], pieces: Mapping[int, Mapping[str, list[Piece]]]
    ) -> Forcing | None:
        target, anchor = self._subject.config.target_modality, self._subject.config.anchor_modality
        partner = int(self._partner[index])
        try:
            there = pieces.get(partner)
            other = self._subject.spoken(self._questions[partner]) if there is None else there[target][0].prompt
        except TARSError as error:
            self._failed(partner, error)
            return None
        prompts = (own[anchor][-1].prompt, own[target][0].prompt, other)
        return Forcing(tuple(prompt for prompt in prompts if prompt is not None), own[anchor][-1].tokens)

    def _failed(self, index: int, error: TARSError) -> None:
        self._errors[self._questions[index].id] = about(self._questions[index], error)
