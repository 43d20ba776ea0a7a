"""What is measured of a checkpoint on a set of questions, spoken and written.

Everything is measured on greedy completions. The audio tower is frozen in every arm, so what it makes of the clips is
computed once (`heard`). Of the rest, most of the time goes into the decoder's arithmetic and the sentence embeddings, not
into Hugging Face's generation around them: a loop of our own with a cache allocated once was a tenth faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paths  # noqa: F401  (lets the demo's modules be found)
import torch
from evaluate import MODALITIES, Pairs, accuracy, base_scores, layer_cosine, make_prompts, mean, read_table
from experiment_results import write_outcomes
from heard import heard
from inference import Generated, generate
from model import COMMITTED, Thinker, load
from policies import MAX_NEW_TOKENS, one_thread
from rewards import reasons
from transformers import Qwen2_5OmniProcessor
from verl_training import embedder

from tars_rewards import TARSConfig, TARSReward
from tars_rewards.similarity import cosine

WITH_OUTCOMES = ("test",)
"""Sets of which the outcome of every question is kept, for paired tests."""
COMPARED = 250
"""Layer cosines and behavior deviation are of so many questions of a set at most, the first that can be compared."""
BATCH = 32
EMBEDDER_DTYPE = "bfloat16"
"""More than twice as fast as float32 on a processor that computes in it; on the demo's base, where the behavior deviation is
.0494, it moves that by 5e-5."""

Completion = tuple[list[int], str, bool]
"""Of one question: tokens, text, and whether it was cut off."""


def measure(
    model_dir: Path,
    sets: Sequence[str],
    *,
    base_text_accuracy: Mapping[str, float] | None,
    data: Path,
    heard_cache: Path,
) -> dict[str, dict[str, Any]]:
    """All measures of a checkpoint.

    Args:
        model_dir: The checkpoint, in Hugging Face's layout.
        sets: Names of the sets, each a parquet file of ``data``.
        base_text_accuracy: Text accuracy of the untrained base on each of the sets, the denominator of the modality
            recovery rate; None: the checkpoint is the base itself.
        data: Directory of the data set.
        heard_cache: Directory in which the outputs of the audio tower are kept.

    Returns:
        By set: ``questions``, ``chance``; of each modality ``<modality>_accuracy``, ``_accuracy_by_template``, ``_format``,
        ``_tokens`` (mean length), ``_reasons`` (share that does); ``gap``, ``own_text_ratio``, ``mrr`` (in percent) and its
        ``mrr_denominator``; ``behavior_deviation`` over ``behavior_pairs`` questions; ``layer_cosine`` and
        ``layer_cosine_mismatched`` over ``layer_cosine_pairs`` questions; for the sets `WITH_OUTCOMES` also ``outcomes`` by
        modality (`experiment_results.read_outcomes`).

    Raises:
        KeyError: ``base_text_accuracy`` lacks a set.
    """
    with one_thread():
        thinker, processor = load(model_dir, COMMITTED)
        reward = TARSReward(TARSConfig(embedder=str(embedder()), embedder_dtype=EMBEDDER_DTYPE))
        written: dict[str, Completion] = {}
        return {
            name: _measure_set(
                thinker,
                processor,
                reward,
                name,
                written,
                base=None if base_text_accuracy is None else base_text_accuracy[name],
                data=data,
                heard_cache=heard_cache,
            )
            for name in sets
        }


def _measure_set(
    thinker: Thinker,
    processor: Qwen2_5OmniProcessor,
    reward: TARSReward,
    name: str,
    written: dict[str, Completion],
    *,
    base: float | None,
    data: Path,
    heard_cache: Path,
) -> dict[str, Any]:
    table = read_table(data, name)
    with torch.no_grad():
        audio = heard(thinker, processor, table, heard_cache / f"{name}.safetensors")
        pairs = Pairs(table, make_prompts(thinker, processor, table, audio))
    questions = [extra["question"] for extra in table["extra_info"]]
    _write(thinker, processor, dict(zip(questions, pairs.prompts["text"], strict=True)), written)
    greedy = {
        "speech": _complete(thinker, processor, pairs.prompts["speech"]),
        "text": _joined([written[question] for question in questions]),
    }
    measures = {"questions": len(pairs), **accuracy(pairs, greedy)}
    denominator = measures["text_accuracy"] if base is None else base
    measures |= {
        "mrr": round(100 * measures["speech_accuracy"] / denominator, 2) if denominator else None,
        "mrr_denominator": denominator,
        **{f"{modality}_reasons": mean([reasons(text) for text in greedy[modality].text]) for modality in MODALITIES},
        **behavior_deviation(reward, greedy["speech"].text, greedy["text"].text, most=COMPARED),
        **layer_cosine(thinker, processor, pairs, greedy, most=COMPARED),
    }
    if name in WITH_OUTCOMES:
        scores = base_scores(pairs, greedy)
        measures["outcomes"] = {
            modality: write_outcomes([score.correct for score in scores[modality]]) for modality in MODALITIES
        }
    return measures


def _complete(thinker: Thinker, processor: Qwen2_5OmniProcessor, prompts: Sequence[torch.Tensor]) -> Generated:
    return generate(thinker, processor, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH, with_entropy=False)


def _write(
    thinker: Thinker, processor: Qwen2_5OmniProcessor, prompts: dict[str, torch.Tensor], written: dict[str, Completion]
) -> None:
    """Complete the written questions that are new: sets of other voices and noise ask the same ones."""
    new = [question for question in prompts if question not in written]
    if new:
        done = _complete(thinker, processor, [prompts[question] for question in new])
        written |= zip(new, zip(done.tokens, done.text, done.truncated, strict=True), strict=True)


def _joined(completions: Sequence[Completion]) -> Generated:
    tokens, text, truncated = (list(each) for each in zip(*completions, strict=True))
    return Generated(tokens=tokens, text=text, truncated=truncated, entropy=[])


def behavior_deviation(
    reward: TARSReward, speech: Sequence[str], text: Sequence[str], *, most: int | None = None
) -> dict[str, Any]:
    """1 - mean cosine of the sentence embeddings of each spoken answer and the written one of the same question.

    Args:
        reward: Its embedder is asked, as by the behavior term.
        speech: Completions of the spoken questions.
        text: Completions of the same questions, written. A pair in which one is blank is left out.
        most: At most so many pairs, the first.
    """
    kept = [(one, other) for one, other in zip(speech, text, strict=True) if one.strip() and other.strip()][:most]
    if not kept:
        return {"behavior_deviation": None, "behavior_pairs": 0}
    vectors = torch.from_numpy(reward.embed([each for pair in kept for each in pair]))
    values, _ = cosine(vectors[::2], vectors[1::2])
    return {"behavior_deviation": round(1 - float(values.double().mean()), 5), "behavior_pairs": len(kept)}
