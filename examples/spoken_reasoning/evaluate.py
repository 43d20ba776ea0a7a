"""Measure a model on held-out questions, spoken and written.

Usage::

    python examples/spoken_reasoning/evaluate.py --model runs/demo/base --data runs/demo/data --out runs/demo/before.json

Greedy accuracy in both modalities and the gap between them; how much sampled completions vary (what RL can choose
among); how well the model hears (word accuracy of transcriptions); and the layer-wise cosine of spoken and written
completions of the same question, the quantity that TARS rewards. Every number comes with the count it averages.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile
import torch
from inference import Generated, embed, generate, hear, left_pad, prompt_text, transcription_prompt
from model import Thinker, load
from transformers import Qwen2_5OmniProcessor

from tars_rewards import TARSReward
from tars_rewards.capture import capture_hidden_states
from tars_rewards.protocol import BaseScore

MODALITIES = ("speech", "text")
SAMPLES = 4  # completions a question in each modality, as in training


@dataclass(frozen=True)
class Pairs:
    """Held-out questions with their prompts in both modalities, as embeddings."""

    table: pd.DataFrame
    prompts: dict[str, list[torch.Tensor]]
    transcription_prompts: Sequence[torch.Tensor] = ()

    def __len__(self) -> int:
        return len(self.table)


def read_table(data: Path, split: str, limit: int | None = None) -> pd.DataFrame:
    """The spoken rows of a split, a question each; ``extra_info`` has the question's text."""
    table = pd.read_parquet(data / f"{split}.parquet")
    return table[table["modality"] == "speech"].head(limit).reset_index(drop=True)


def read_clips(table: pd.DataFrame) -> list[npt.NDArray[np.float32]]:
    """The clips of spoken rows."""
    return [soundfile.read(paths[0], dtype="float32")[0] for paths in table["audios"]]


def make_prompts(
    thinker: Thinker, processor: Qwen2_5OmniProcessor, table: pd.DataFrame, heard: Sequence[torch.Tensor]
) -> dict[str, list[torch.Tensor]]:
    """Prompts of questions by modality, as embeddings; ``heard`` is what the audio tower made of their clips."""
    spoken = prompt_text(processor, None)
    questions = [extra["question"] for extra in table["extra_info"]]
    return {
        "speech": [embed(thinker, processor, spoken, audio) for audio in heard],
        "text": [embed(thinker, processor, prompt_text(processor, question)) for question in questions],
    }


def read_pairs(thinker: Thinker, processor: Qwen2_5OmniProcessor, data: Path, split: str, limit: int | None) -> Pairs:
    """Read a split; every clip goes through the audio tower once."""
    table = read_table(data, split, limit)
    heard = hear(thinker, processor, read_clips(table))
    transcribe = transcription_prompt(processor)
    with torch.no_grad():
        return Pairs(
            table=table,
            prompts=make_prompts(thinker, processor, table, heard),
            transcription_prompts=[embed(thinker, processor, transcribe, audio) for audio in heard],
        )


def base_scores(pairs: Pairs, greedy: dict[str, Generated]) -> dict[str, list[BaseScore]]:
    """Accuracy and format of every completion, by modality."""
    reward = TARSReward()
    return {
        modality: [
            reward.base(text, answer, truncated=truncated)
            for text, answer, truncated in zip(done.text, pairs.table["answer"], done.truncated, strict=True)
        ]
        for modality, done in greedy.items()
    }


def accuracy(pairs: Pairs, greedy: dict[str, Generated]) -> dict[str, Any]:
    """Greedy accuracy, format and length by modality, and the gap."""
    result: dict[str, Any] = {}
    for modality, scores in base_scores(pairs, greedy).items():
        by_template: dict[str, list[bool]] = defaultdict(list)
        for score, extra in zip(scores, pairs.table["extra_info"], strict=True):
            by_template[extra["template"]].append(score.correct)
        result |= {
            f"{modality}_accuracy": mean([score.correct for score in scores]),
            f"{modality}_accuracy_by_template": {name: mean(right) for name, right in sorted(by_template.items())},
            f"{modality}_format": mean([score.format for score in scores]),
            f"{modality}_tokens": mean([len(tokens) for tokens in greedy[modality].tokens]),
        }
    speech, text = result["speech_accuracy"], result["text_accuracy"]
    return result | {
        "chance": mean([1 / extra["options"] for extra in pairs.table["extra_info"]]),
        "gap": text - speech,
        "own_text_ratio": speech / text if text else None,
    }


def variety(thinker: Thinker, processor: Qwen2_5OmniProcessor, pairs: Pairs, count: int, seed: int) -> dict[str, Any]:
    """Sampling at temperature 1: entropy, and the share of questions whose samples are neither all right nor all wrong."""
    reward, answers, result = TARSReward(), list(pairs.table["answer"])[:count], {}
    for modality in MODALITIES:
        prompts = [prompt for prompt in pairs.prompts[modality][:count] for _ in range(SAMPLES)]
        done = generate(thinker, processor, prompts, temperature=1.0, seed=seed)
        right = [
            reward.base(text, answers[i // SAMPLES], truncated=done.truncated[i]).correct
            for i, text in enumerate(done.text)
        ]
        groups = [sum(right[i : i + SAMPLES]) for i in range(0, len(right), SAMPLES)]
        result |= {
            f"{modality}_sampled_accuracy": mean(right),
            f"{modality}_entropy": mean(done.entropy),
            f"{modality}_mixed_groups": mean([0 < group < SAMPLES for group in groups]),
            f"{modality}_all_wrong_groups": mean([group == 0 for group in groups]),
        }
    return result


@torch.no_grad()
def transcription(thinker: Thinker, processor: Qwen2_5OmniProcessor, pairs: Pairs, count: int) -> dict[str, Any]:
    """Word accuracy (1 - word error rate) of the transcription prompt, and accuracy of the answers to these transcripts."""
    done = generate(thinker, processor, pairs.transcription_prompts[:count], max_new_tokens=96)
    said = [extra["question"].split() for extra in pairs.table["extra_info"][:count]]
    errors = sum(edit_distance(words, text.split()) for words, text in zip(said, done.text, strict=True))
    hearing = {"word_accuracy": 1 - errors / sum(map(len, said)), "word_accuracy_clips": len(said)}
    prompts = [embed(thinker, processor, prompt_text(processor, text)) for text in done.text]
    answered = {"transcript": generate(thinker, processor, prompts)}
    scores = base_scores(Pairs(pairs.table[:count], {}), answered)["transcript"]
    return hearing | {"cascade_accuracy": mean([score.correct for score in scores])}


def layer_cosine(
    thinker: Thinker,
    processor: Qwen2_5OmniProcessor,
    pairs: Pairs,
    greedy: dict[str, Generated],
    *,
    most: int | None = None,
) -> dict[str, Any]:
    """Cosine, by layer, of the pooled states of a spoken completion and of a correct written one.

    Matched: of the same question, on the model's own greedy rollouts. Mismatched: the written completion of the next
    question, which says how much of the cosine any two completions share.

    Args:
        thinker: The model.
        processor: Its processor.
        pairs: The questions.
        greedy: Its completions.
        most: At most so many questions, the first that have a correct written completion.
    """
    scores = base_scores(pairs, greedy)["text"]
    kept = [i for i, score in enumerate(scores) if score.correct][:most]
    if not kept:
        return {"layer_cosine": None, "layer_cosine_mismatched": None, "layer_cosine_pairs": 0}
    states = {
        modality: pooled_states(
            thinker, [pairs.prompts[modality][i] for i in kept], [greedy[modality].tokens[i] for i in kept]
        )
        for modality in MODALITIES
    }
    matched = torch.cosine_similarity(states["speech"], states["text"], dim=-1).mean(0)
    mismatched = torch.cosine_similarity(states["speech"], states["text"].roll(1, 0), dim=-1).mean(0)
    return {
        "layer_cosine": [round(value, 4) for value in matched.tolist()],
        "layer_cosine_mismatched": [round(value, 4) for value in mismatched.tolist()],
        "layer_cosine_pairs": len(kept),
    }


@torch.no_grad()
def pooled_states(
    thinker: Thinker, prompts: Sequence[torch.Tensor], completions: Sequence[Sequence[int]], *, batch_size: int = 32
) -> torch.Tensor:
    """States ``[rows, layers, hidden]`` of completions, averaged over their tokens."""
    table, pooled = thinker.get_input_embeddings(), []
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(completions[i]))
    for start in range(0, len(prompts), batch_size):
        rows = by_length[start : start + batch_size]
        ends = [torch.tensor(completions[i]) for i in rows]
        inputs, mask = left_pad([torch.cat([prompts[i], table(end)]) for i, end in zip(rows, ends, strict=True)])
        from_end = mask.shape[1] - torch.arange(mask.shape[1])
        completion = torch.stack([from_end <= len(end) for end in ends])
        with capture_hidden_states(thinker, completion) as captured:
            thinker.model(
                inputs_embeds=inputs,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=False,
            )
        pooled.append(captured.pooled)
    return torch.cat(pooled)[torch.tensor(by_length).argsort()]


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and substitutions that make one sequence of words the other."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, another in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != another))
    return row[-1]


def mean(values: Sequence[float]) -> float | None:
    """Mean rounded to four places; None of nothing."""
    return round(sum(values) / len(values), 4) if values else None


def evaluate(
    model: Path,
    data: Path,
    *,
    processor_files: Path | None = None,
    split: str,
    limit: int | None,
    sampled: int,
    transcribed: int,
    seed: int,
) -> dict[str, Any]:
    """All measurements of one model.

    Args:
        model: Model directory.
        data: Directory from ``make_data.py``.
        processor_files: Directory with the processor; a checkpoint that training wrote may lack it. None: the model's.
        split: Which split.
        limit: At most so many questions.
        sampled: Questions whose completions are sampled; 0 leaves the variety out.
        transcribed: Clips that are transcribed; 0 leaves the hearing out.
        seed: Of the sampling.
    """
    start = time.time()
    thinker, processor = load(model, processor_files)
    pairs = read_pairs(thinker, processor, data, split, limit)
    greedy = {modality: generate(thinker, processor, pairs.prompts[modality]) for modality in MODALITIES}
    result = {"questions": len(pairs), "split": split, **accuracy(pairs, greedy)}
    result |= layer_cosine(thinker, processor, pairs, greedy)
    if transcribed:
        result |= transcription(thinker, processor, pairs, transcribed)
    if sampled:
        result |= {"sampled_questions": min(sampled, len(pairs)), **variety(thinker, processor, pairs, sampled, seed)}
    return result | {"seconds": round(time.time() - start, 1)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure a model on held-out questions.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--processor", type=Path, help="directory with the processor's files; default: the model's")
    parser.add_argument("--data", type=Path, required=True, help="directory written by make_data.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="at most so many questions")
    parser.add_argument("--sampled", type=int, default=48, help="questions sampled 4 times in each modality; 0: none")
    parser.add_argument("--transcribed", type=int, default=48, help="clips transcribed; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = evaluate(
        arguments.model,
        arguments.data,
        processor_files=arguments.processor,
        split=arguments.split,
        limit=arguments.limit,
        sampled=arguments.sampled,
        transcribed=arguments.transcribed,
        seed=arguments.seed,
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
