"""What is measured of one model, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tars_rewards.drift.measures import CKA, centred_cosine, debiased_cka
from tars_rewards.drift.passes import Pass, partners
from tars_rewards.drift.positions import by_tenths, by_tokens, stacked
from tars_rewards.drift.words import words_of
from tars_rewards.similarity import cosine

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from tars_rewards.drift.passes import Subject
    from tars_rewards.drift.settings import DriftSettings
    from tars_rewards.errors import TARSError
    from tars_rewards.reward import TARSReward
    from tars_rewards.scoring.question import Completion, Question

PAIRS = ("matched", "mismatched")


@dataclass(frozen=True, eq=False)
class ModelDrift:
    """One model, question by question; NaN where something does not exist.

    Keys: states are "forced" (a completion after both prompts, mean over its tokens) or "rollouts" (the model's own
    completions, pooled, mean over samples); measures "cosine" or "centred"; pairs "matched" or "mismatched".
    """

    questions: list[Question]  #: with the model's own completions of both modalities
    forced: list[Completion]  #: of each question
    similarity: Mapping[tuple[str, str, str], Float[np.ndarray, "questions layers"]]  #: by states, measure, pairs
    cka: Mapping[tuple[str, str], CKA]  #: by states, pairs
    positions: Mapping[tuple[str, str, str], Float[np.ndarray, "questions places layers"]]
    """By measure, pairs, and "tokens" or "tenths": along the forced completion."""
    behavior: Mapping[str, Float[np.ndarray, " questions"]]  #: see `behavior`

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(next(iter(self.similarity.values())).shape[1])


def measure_model(
    subject: Subject,
    questions: Sequence[Question],
    forced: Sequence[Completion],
    reward: TARSReward,
    settings: DriftSettings,
    bar: Any,
) -> ModelDrift | dict[str, TARSError]:
    """Measure at least two questions.

    What is subtracted for the centred cosine is the mean over these questions, each counting once: of the forced
    completions the mean over questions of their mean over tokens, after the written prompts and after the (matched) spoken
    ones; of the model's own completions the mean over questions and samples of their pooled states, by modality.

    Args:
        subject: The model.
        questions: With the same number of completions in both modalities of each.
        forced: The completion of each that is fed to the model after both prompts.
        reward: Brings the embedder.
        settings: How to measure.
        bar: Progress: `update()` is called with the number of questions that a pass has done.

    Returns:
        What was measured, or, by question, why one could not be; then nothing was measured.
    """
    partner = partners(len(questions), settings.seed)
    first = Pass(subject, questions, forced, partner)
    if errors := first.run(bar, rollouts=True, means=None):
        return errors
    pooled = torch.stack(first.pooled)
    tokens = {"cosine": first.cosine}
    if settings.centred:
        text, speech = (_mean([each[place] for each in pooled]) for place in (0, 1))
        second = Pass(subject, questions, forced, partner)
        if errors := second.run(bar, rollouts=False, means=torch.stack([text, speech, speech])):
            return errors
        tokens["centred"] = second.cosine
    similarity, positions = _along(tokens, settings.bucket_tokens)
    cka = {("forced", pairs): debiased_cka(pooled[:, 0], pooled[:, 1 + place]) for place, pairs in enumerate(PAIRS)}
    own, own_cka = _own_rollouts(first.own, partner)
    return ModelDrift(
        questions=list(questions),
        forced=list(forced),
        similarity=similarity | own,
        cka=cka | own_cka,
        positions=positions,
        behavior=words_of(questions, first.said, partner, reward, settings.config),
    )


def _along(
    tokens: Mapping[str, list[Float[np.ndarray, "pairs tokens layers"]]], width: int
) -> tuple[dict[tuple[str, str, str], Any], dict[tuple[str, str, str], Any]]:
    """Similarity of whole completions, and of places along them, by measure."""
    similarity, positions = {}, {}
    for name, of_questions in tokens.items():
        for place, pairs in enumerate(PAIRS):
            values = [each[place] for each in of_questions]
            similarity["forced", name, pairs] = np.stack([by_tokens(each, len(each))[0] for each in values])
            positions[name, pairs, "tokens"] = stacked([by_tokens(each, width) for each in values])
            positions[name, pairs, "tenths"] = stacked([by_tenths(each) for each in values])
    return similarity, positions


def _own_rollouts(
    states: list[Tensor], partner: Int[np.ndarray, " questions"]
) -> tuple[dict[tuple[str, str, str], Float[np.ndarray, "questions layers"]], dict[tuple[str, str], CKA]]:
    """Similarity of the model's own completions, sample by sample.

    Args:
        states: Of each question [modalities, samples, layers, hidden], speech first.
        partner: Whose spoken completion is the mismatched one.
    """
    means = [_mean([sample for each in states for sample in each[modality]]) for modality in (0, 1)]
    similarity: dict[tuple[str, str, str], Float[np.ndarray, "questions layers"]] = {}
    cka = {}
    for pairs, of in (("matched", np.arange(len(states))), ("mismatched", partner)):
        for name in ("cosine", "centred"):
            rows = []
            for index, other in enumerate(of):
                speech, text = states[other][0], states[index][1]
                found = cosine(speech, text) if name == "cosine" else centred_cosine(speech, text, *means)
                rows.append(by_tokens(found[0].masked_fill(~found[1], torch.nan).double().numpy(), len(speech))[0])
            similarity["rollouts", name, pairs] = np.stack(rows)
        of_samples = [
            debiased_cka(
                torch.stack([states[other][0, sample] for other in of]),
                torch.stack([each[1, sample] for each in states]),
            )
            for sample in range(states[0].shape[1])
        ]
        value, without = (np.mean([each[part] for each in of_samples], axis=0) for part in (0, 1))
        cka["rollouts", pairs] = CKA(value, without)
    return similarity, cka


def _mean(states: Sequence[Tensor]) -> Float[Tensor, "layers hidden"]:
    """Mean over questions in float64: each counts once, however long its completion is."""
    total = torch.zeros_like(states[0], dtype=torch.float64)
    for each in states:
        total += each
    return total / len(states)
