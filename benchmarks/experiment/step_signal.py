"""How much of the direction that raises spoken accuracy is in the gradient of one step, under each reward.

Usage::

    python benchmarks/experiment/step_signal.py natural ordinary

prints a table for the README and writes ``bases/signal.json``.

Questions of the dev set are answered as in training, and each question's policy gradient is kept under every reward. One half
of the questions then says where spoken accuracy rises; a step is made of 8 questions of the other half. The cosine of the
two says what a step knows. It is small where what is right about one question says little about the next, and then no
weight of a reward's terms helps, for they are of the same few questions. Where the answers are guesses (the constructed
base) no direction raises accuracy, and the cosine is one of chance.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paths
import torch
from arms import BASES
from bases import assemble
from evaluate import MODALITIES, make_prompts, read_table
from gradients import SAMPLES, SET, sample
from heard import heard
from policies import completion_logits, load_policy, one_thread, trained_parameters
from verl_training import embedder

from tars_rewards import Rollout, TARSConfig, TARSReward, modality_normalized_advantages

SIGNAL = paths.EXPERIMENT / "bases" / "signal.json"
QUESTIONS, STEP = 160, 8
COORDINATES = 250_000  # of the gradient, drawn at random: cosines need no more
HALVINGS = 20
REWARDS = {
    "standard RL": {},
    "TARS (1, 1)": {"representation": 1.0, "behavior": 1.0},
    "TARS (8, 8)": {"representation": 8.0, "behavior": 8.0},
    "representation (8)": {"representation": 8.0},
    "representation, centred (8)": {"centred": 8.0},
    "behavior (8)": {"behavior": 8.0},
}
"""Weights of the terms beside the base reward."""

Vectors = dict[str, torch.Tensor]


def question_gradients(model_dir: Path, *, data: Path, heard_cache: Path, questions: int = QUESTIONS) -> Vectors:
    """Gradients of each question's spoken completions, weighted by the advantages that a part of the reward gives them.

    Args:
        model_dir: The checkpoint.
        data: Directory of the data set.
        heard_cache: Directory in which the outputs of the audio tower are kept.
        questions: The first so many of the dev set.

    Returns:
        ``[questions, coordinates]`` of ``accuracy``, ``base`` (accuracy and format), ``representation``, ``centred``
        (`TARSConfig.center`), ``behavior``, and of ``text``: the base reward of the written completions.
    """
    with one_thread():
        thinker, processor = load_policy(model_dir)
        table = read_table(data, SET)
        audio = heard(thinker, processor, table, heard_cache / f"{SET}.safetensors")[:questions]
        table = table.head(questions)
        with torch.no_grad():
            single = make_prompts(thinker, processor, table, audio)
        samples, rollouts = sample(thinker, processor, table, single, seed=0)
        advantage = {
            name: values.view(len(MODALITIES), len(table), SAMPLES) for name, values in advantages(rollouts).items()
        }
        parameters = list(trained_parameters(thinker).values())
        size = sum(parameter.numel() for parameter in parameters)
        drawn = torch.randperm(size, generator=torch.Generator().manual_seed(0))[:COORDINATES]
        found = {name: torch.zeros(len(table), len(drawn)) for name in (*advantage, "text")}
        for question in range(len(table)):
            # With gradient: the prompts' words are embedded by what is trained.
            row = table.iloc[[question]].reset_index(drop=True)
            prompt = make_prompts(thinker, processor, row, audio[question : question + 1])
            for index, modality in enumerate(MODALITIES):
                completions = samples[modality].tokens[question * SAMPLES : (question + 1) * SAMPLES]
                log_probs = completion_logits(thinker, prompt[modality] * SAMPLES, completions).log_softmax(-1)
                chosen = log_probs.gather(1, torch.tensor([token for row in completions for token in row])[:, None])
                sums = torch.stack([part.sum() for part in chosen[:, 0].split([len(row) for row in completions])])
                for name in advantage if modality == "speech" else ["base"]:
                    weights = advantage[name][index, question].float()
                    if weights.abs().max() > 1e-9:
                        made = torch.autograd.grad((weights * sums).sum(), parameters, retain_graph=True)
                        into = found[name if modality == "speech" else "text"]
                        into[question] = torch.cat([each.flatten() for each in made])[drawn]
    return found


def advantages(rollouts: list[Rollout]) -> Vectors:
    """Advantages of the rollouts under each part of the reward: by question and modality, not divided by the deviation."""
    config = {"embedder": str(embedder())}
    plain = TARSReward(TARSConfig(**config))(rollouts)
    centred = TARSReward(TARSConfig(**config, beta=0.0, center=True))(rollouts)
    parts = {
        "accuracy": plain.components["accuracy"],
        "base": plain.components["accuracy"] + TARSConfig.format_weight * plain.components["format"],
        "representation": plain.components["representation"],
        "centred": centred.components["representation"],
        "behavior": plain.components["behavior"],
    }
    pairs, modalities = [each.pair_id for each in rollouts], [each.modality for each in rollouts]
    return {name: modality_normalized_advantages(part.double(), pairs, modalities) for name, part in parts.items()}


def agreement(vectors: Vectors, rewards: Mapping[str, Mapping[str, float]] = REWARDS) -> dict[str, dict[str, float]]:
    """What the gradients of a half of the questions know of the direction in which the other half's spoken accuracy rises.

    Args:
        vectors: From `question_gradients`.
        rewards: Weights of the terms, by name of the reward.

    Returns:
        By reward the mean cosine, over `HALVINGS` random halvings, of that direction with the gradient of ``step``: `STEP`
        questions, and ``half``: all of the half.
    """
    count = len(vectors["base"])
    generator = torch.Generator().manual_seed(0)
    found: dict[str, dict[str, float]] = {name: {"step": 0.0, "half": 0.0} for name in rewards}
    for _ in range(HALVINGS):
        order = torch.randperm(count, generator=generator)
        one, other = order[: count // 2], order[count // 2 :]
        rising = vectors["accuracy"][one].mean(0)
        for name, weights in rewards.items():
            terms = sum((weight * vectors[term][other] for term, weight in weights.items()), torch.zeros(()))
            of_questions = vectors["base"][other] + vectors["text"][other] + terms
            steps = of_questions[: len(other) // STEP * STEP].unflatten(0, (-1, STEP)).mean(1)
            for kind, gradients in (("step", steps), ("half", of_questions.mean(0)[None])):
                found[name][kind] += float(torch.cosine_similarity(gradients, rising[None]).mean()) / HALVINGS
    return found


def table(described: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown: a row for each reward, a step's and a half's cosine for each base."""
    head = [
        "| reward (weights) | " + " | ".join(f"{base}: 8 questions | 80" for base in described) + " |",
        "|---" * (1 + 2 * len(described)) + "|",
    ]
    rows = [
        f"| {name} | "
        + " | ".join(f"{of[name]['step']:.3f} | {of[name]['half']:.3f}" for of in described.values())
        + " |"
        for name in REWARDS
    ]
    return "\n".join(head + rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure what a step's gradient knows.")
    parser.add_argument("names", nargs="+", choices=BASES)
    parser.add_argument("--work", type=Path, default=paths.WORK, help="working files of the experiment")
    arguments = parser.parse_args()
    described: dict[str, Any] = json.loads(SIGNAL.read_text()) if SIGNAL.exists() else {}
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as scratch:
            assemble(name, Path(scratch))
            made = question_gradients(Path(scratch), data=arguments.work / "data", heard_cache=arguments.work / "heard")
        described[name] = agreement(made)
        SIGNAL.write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    print(table({name: described[name] for name in BASES if name in described}))


if __name__ == "__main__":
    main()
