"""How much of the direction that raises spoken accuracy is in the gradient of one step, under each reward.

Usage::

    python benchmarks/experiment/step_signal.py natural ordinary

prints a table for the README and writes ``bases/signal.json``.

Questions of the dev set are answered as in training, and each question's policy gradient is kept under every reward. Some of
the questions then say where spoken accuracy rises; a step is made of 8 others. The cosine of the two says what a step knows. It
is small where what is right about one question says little about the next, and then no weight of a reward's terms helps, for
they are of the same few questions. Where the answers are guesses (the constructed base) no direction raises accuracy, and the
cosine is one of chance.
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
from spread import short
from verl_training import embedder

from tars_rewards import Rollout, TARSConfig, TARSReward, modality_normalized_advantages

SIGNAL = paths.EXPERIMENT / "bases" / "signal.json"
QUESTIONS = 320
STEP, MANY = 8, 80  # questions of a gradient; the direction in which accuracy rises is told by MANY
COORDINATES = 250_000  # of the gradient, drawn at random: cosines need no more
STANDARD = "standard RL"
REWARDS = {
    STANDARD: {},
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


def agreement(
    vectors: Vectors, rewards: Mapping[str, Mapping[str, float]] = REWARDS, *, step: int = STEP, many: int = MANY
) -> dict[str, dict[str, float]]:
    """What the gradient of some questions knows of the direction in which spoken accuracy rises, by ``many`` others.

    That is ``<a, g> / (|a| |g|)`` with the mean products of gradients of different questions, which are not biased by what a
    question says of itself, and with the root mean square lengths of a mean over so many questions.

    Args:
        vectors: From `question_gradients`.
        rewards: Weights of the terms, by name of the reward; with `STANDARD`.
        step: Questions of a step.
        many: Questions that say where accuracy rises.

    Returns:
        By reward the cosine of the gradient of ``step`` and of ``many`` questions, the latter less standard RL's
        (``difference``), and the standard errors of all (``…_error``), by leaving out a question at a time.
    """
    count = len(vectors["base"])
    stacked = torch.cat([vectors["accuracy"], *(_gradient(vectors, weights) for weights in rewards.values())])
    products = (stacked @ stacked.T).double().view(1 + len(rewards), count, 1 + len(rewards), count)
    found, left_out = {}, {}
    for index, name in enumerate(rewards, 1):
        kinds = {"step": step, "many": many}
        parts = products[0, :, 0], products[index, :, index], products[0, :, index]
        cosines = {kind: _cosines(*parts, questions=questions, many=many) for kind, questions in kinds.items()}
        found[name] = {kind: float(whole) for kind, (whole, _) in cosines.items()}
        left_out[name] = {kind: left for kind, (_, left) in cosines.items()}
    for name, values in found.items():
        values["difference"] = values["many"] - found[STANDARD]["many"]
        left_out[name]["difference"] = left_out[name]["many"] - left_out[STANDARD]["many"]
        errors = {
            f"{kind}_error": float(left.std(correction=0)) * (count - 1) ** 0.5 for kind, left in left_out[name].items()
        }
        values |= errors
    return found


def _gradient(vectors: Vectors, weights: Mapping[str, float]) -> torch.Tensor:
    """Gradients of the questions under a reward, written completions and all."""
    terms = sum((weight * vectors[term] for term, weight in weights.items()), torch.zeros(()))
    return vectors["base"] + vectors["text"] + terms


def _cosines(
    rising: torch.Tensor, gradient: torch.Tensor, between: torch.Tensor, *, questions: int, many: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosine of `agreement` from products ``[questions, questions]``, and those without one question each."""

    def squared(products: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        alone, whole = products.diagonal(), _between_questions(products)
        count = len(products)
        own = alone.mean(), (alone.sum() - alone) / (count - 1)
        return own[0] / size + (1 - 1 / size) * whole[0], own[1] / size + (1 - 1 / size) * whole[1]

    lengths = zip(squared(rising, many), squared(gradient, questions), strict=True)
    both = [
        product / (one * other).sqrt()
        for product, (one, other) in zip(_between_questions(between), lengths, strict=True)
    ]
    return both[0], both[1]


def _between_questions(products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean product of two different questions, and the same without one question each."""
    count = len(products)
    others = products - torch.diag(products.diagonal())
    total = others.sum()
    without = total - others.sum(0) - others.sum(1)
    return total / (count * (count - 1)), without / ((count - 1) * (count - 2))


def table(described: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown: a row for each reward; for each base the cosine of a step, of many questions, and less standard RL's."""
    columns = f"{STEP} questions | {MANY} | {MANY}, less standard RL"
    head = [
        "| reward (weights) | " + " | ".join(f"{base}: {columns}" for base in described) + " |",
        "|---" * (1 + 3 * len(described)) + "|",
    ]
    rows = [f"| {name} | " + " | ".join(_cells(of[name], name) for of in described.values()) + " |" for name in REWARDS]
    return "\n".join(head + rows)


def _cells(values: Mapping[str, float], name: str) -> str:
    def shown(kind: str, sign: str = "") -> str:
        error = values[f"{kind}_error"]
        return f"{short(f'{values[kind]:{sign}.3f}')} ± {short(f'{error:.3f}')}"

    less = "" if name == STANDARD else shown("difference", "+")
    return f"{shown('step')} | {shown('many')} | {less}"


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
