"""What a model's completions say, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tars_rewards.answers import strip_tags
from tars_rewards.drift.behavior import Said, deviation, mean_of_pairs
from tars_rewards.extraction import answer_extractor, extract_answers
from tars_rewards.similarity import cosine

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from tars_rewards.config import TARSConfig
    from tars_rewards.reward import TARSReward
    from tars_rewards.scoring.question import Question


def words_of(
    questions: Sequence[Question],
    tokens: Sequence[Sequence[Sequence[tuple[int, ...]]]],
    partner: Int[np.ndarray, " questions"],
    reward: TARSReward,
    config: TARSConfig,
) -> dict[str, Float[np.ndarray, " questions"]]:
    """Behaviour deviation of each question, mean over its pairs of completions; NaN where one does not exist.

    Beside the figures of `behavior` there is `semantic_consistency_mismatched`: with the partner's spoken completion.

    Args:
        questions: With completions.
        tokens: Of the completions, by question, modality (speech first) and sample.
        partner: Whose spoken completion is the mismatched one.
        reward: Brings the embedder.
        config: Names the modalities and the extractor; with `beta` 0 there is no semantic consistency.
    """
    target, anchor = config.target_modality, config.anchor_modality
    texts = [
        [[each.text for each in question.completions[name]] for name in (target, anchor)] for question in questions
    ]
    answers = extract_answers(
        answer_extractor(config.answer_extractor), [text for each in texts for several in each for text in several]
    )
    rows = []
    for spoken, written in zip(texts, tokens, strict=True):
        said = [
            [Said(text, ids, answers[text]) for text, ids in zip(several, many, strict=True)]
            for several, many in zip(spoken, written, strict=True)
        ]
        rows.append(mean_of_pairs([deviation(*pair) for pair in zip(*said, strict=True)]))
    figures = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    if config.beta > 0:
        figures["semantic_consistency"] = _consistency(texts, np.arange(len(texts)), reward)
        figures["semantic_consistency_mismatched"] = _consistency(texts, partner, reward)
    return figures


def _consistency(
    texts: Sequence[Sequence[Sequence[str]]], partner: Int[np.ndarray, " questions"], reward: TARSReward
) -> Float[np.ndarray, " questions"]:
    pairs = [(texts[other][0], texts[index][1]) for index, other in enumerate(partner)]
    spoken, written = (
        torch.from_numpy(np.array(reward.embed([text for pair in pairs for text in pair[side]]))) for side in (0, 1)
    )
    values, exists = cosine(spoken, written)
    exists &= torch.tensor([all(map(strip_tags, side)) for pair in pairs for side in zip(*pair, strict=True)])
    by_question = values.masked_fill(~exists, torch.nan).double().reshape(len(pairs), -1).numpy()
    there = ~np.isnan(by_question)
    sums = np.where(there, by_question, 0.0).sum(axis=1)
    return np.where(there.any(axis=1), sums / np.maximum(there.sum(axis=1), 1), np.nan)
