"""What the bases are like before any training of the experiment, on the dev set.

Usage::

    python benchmarks/experiment/describe_bases.py natural constructed ordinary

prints a table for details.md and writes ``bases/dev.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import paths
import torch
from arms import BASES
from bases import assemble
from evaluate import MODALITIES, SAMPLES, Pairs, accuracy, layer_cosine, mean, read_pairs, transcription
from inference import Generated, generate
from model import Thinker, load
from rewards import reasons
from transformers import Qwen2_5OmniProcessor

from tars_rewards import TARSReward

DESCRIPTION = paths.EXPERIMENT / "bases" / "dev.json"
SAMPLED = 250  # questions whose completions are sampled in each modality
ROWS = {
    "speech accuracy": "speech_accuracy",
    "text accuracy": "text_accuracy",
    "by template, speech": "speech_accuracy_by_template",
    "by template, text": "text_accuracy_by_template",
    "speech accuracy, T = 1": "speech_sampled_accuracy",
    "text accuracy, T = 1": "text_sampled_accuracy",
    "words transcribed rightly": "word_accuracy",
    "accuracy on its own transcript": "cascade_accuracy",
    "format, speech": "speech_format",
    "reasons in speech, greedy": "speech_reasons",
    "reasons in speech, T = 1": "speech_sampled_reasons",
    "reasons in text, T = 1": "text_sampled_reasons",
    "speech groups of 4 all wrong / mixed / all right": "speech_groups",
    "text groups of 4 all wrong / mixed / all right": "text_groups",
    "entropy at T = 1, speech": "speech_entropy",
    "cosine of layers, same question": "layer_cosine",
    "cosine of layers, other question": "layer_cosine_mismatched",
}


def describe(model: Path, data: Path, *, split: str = "dev", limit: int | None = None) -> dict[str, Any]:
    """All measurements of one base."""
    thinker, processor = load(model)
    return describe_pairs(thinker, processor, read_pairs(thinker, processor, data, split, limit))


def describe_pairs(thinker: Thinker, processor: Qwen2_5OmniProcessor, pairs: Pairs) -> dict[str, Any]:
    """All measurements of one base on questions that it has heard."""
    greedy = {modality: generate(thinker, processor, pairs.prompts[modality]) for modality in MODALITIES}
    result = {
        "questions": len(pairs),
        "sampled_questions": min(SAMPLED, len(pairs)),
        **accuracy(pairs, greedy),
        **layer_cosine(thinker, processor, pairs, greedy),
    }
    result |= transcription(thinker, processor, pairs, len(pairs))
    for modality in MODALITIES:
        prompts = [prompt for prompt in pairs.prompts[modality][:SAMPLED] for _ in range(SAMPLES)]
        sampled = generate(thinker, processor, prompts, temperature=1.0)
        result |= {
            f"{modality}_reasons": mean([reasons(text) for text in greedy[modality].text]),
            f"{modality}_sampled_reasons": mean([reasons(text) for text in sampled.text]),
            f"{modality}_entropy": mean(sampled.entropy),
            **groups(modality, sampled, list(pairs.table["answer"])),
        }
    return result


def groups(modality: str, sampled: Generated, answers: list[str]) -> dict[str, Any]:
    """Accuracy of samples, and the shares of questions whose samples are all wrong, mixed and all right."""
    reward = TARSReward()
    right = [
        reward.base(text, answers[i // SAMPLES], truncated=sampled.truncated[i]).correct
        for i, text in enumerate(sampled.text)
    ]
    counts = [sum(right[i : i + SAMPLES]) for i in range(0, len(right), SAMPLES)]
    wrong, whole = mean([count == 0 for count in counts]), mean([count == SAMPLES for count in counts])
    mixed = mean([0 < count < SAMPLES for count in counts])
    return {f"{modality}_sampled_accuracy": mean(right), f"{modality}_groups": [wrong, mixed, whole]}


def table(described: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each measurement, a column for each base."""

    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
        if isinstance(value, list):
            return " / ".join(map(shown, value))
        return "-" if value is None else f"{value:.3f}".replace("0.", ".", 1)

    head = ["| dev set, 500 questions | " + " | ".join(described) + " |", "|---" * (len(described) + 1) + "|"]
    rows = [f"| {row} | " + " | ".join(shown(of[key]) for of in described.values()) + " |" for row, key in ROWS.items()]
    return "\n".join(head + rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the bases on the dev set.")
    parser.add_argument("names", nargs="+", choices=BASES)
    parser.add_argument("--data", type=Path, default=paths.WORK / "data")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    described: dict[str, Any] = json.loads(DESCRIPTION.read_text()) if DESCRIPTION.exists() else {}
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as scratch:
            assemble(name, Path(scratch))
            described[name] = describe(Path(scratch), arguments.data)
        DESCRIPTION.write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    print(table({name: described[name] for name in BASES if name in described}))


if __name__ == "__main__":
    main()
