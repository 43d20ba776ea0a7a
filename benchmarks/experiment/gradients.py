"""Where a checkpoint's policy gradient points under each reward, and what the signal in its groups is.

A cosine near 1 between the gradient of a reward and that of standard RL says that the two would train alike from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import paths  # noqa: F401  (lets the demo's modules be found)
import torch
from evaluate import MODALITIES, make_prompts, pooled_states, read_table
from heard import heard
from inference import Generated, generate
from model import Thinker
from policies import MAX_NEW_TOKENS, completion_logits, load_policy, one_thread, trained_parameters
from step_log import of_step, rounded
from transformers import Qwen2_5OmniProcessor
from verl_training import embedder

from tars_rewards import Rollout, TARSConfig, TARSReward, modality_normalized_advantages
from tars_rewards.scoring.rows import rollout_row

SET = "dev"  # of held-out questions, the same for all arms
QUESTIONS, SAMPLES = 16, 4
MICRO_BATCH = 16
WEIGHTS = {"standard": (0.0, 0.0), "representation": (1.0, 0.0), "behavior": (0.0, 1.0), "tars": (1.0, 1.0)}
"""Weights alpha and beta of the two terms under each reward."""

Vectors = dict[str, torch.Tensor]


def gradients(
    model_dir: Path, *, data: Path, heard_cache: Path, questions: int = QUESTIONS, seed: int = 0
) -> dict[str, Any]:
    """Policy gradients of a checkpoint under each reward of `WEIGHTS`, on the same completions.

    Of each question 4 spoken and 4 written completions are sampled at temperature 1. The gradient is the one of the first
    update of the RL arms: token-mean, probability ratio 1, advantage = reward - mean by question and modality.

    Args:
        model_dir: The checkpoint.
        data: Directory of the data set.
        heard_cache: Directory in which the outputs of the audio tower are kept.
        questions: The first so many of the dev set.
        seed: Of the sampling and of the choice of references.

    Returns:
        ``cosine``: of each reward's gradient with that of standard RL (None where one of them is zero); ``norm``: of each;
        ``entropy``: mean over the tokens (nats) by modality; ``questions``; and the figures of `step_log.of_step` on these
        completions: the terms' means and their spread within groups, the shares of groups all wrong and all right.
    """
    with one_thread():
        thinker, processor = load_policy(model_dir)
        table = read_table(data, SET)
        audio = heard(thinker, processor, table, heard_cache / f"{SET}.safetensors")
        table = table.head(questions)
        with torch.no_grad():
            single = make_prompts(thinker, processor, table, audio[: len(table)])
        samples, rollouts = sample(thinker, processor, table, single, seed=seed)
        rewards = score(rollouts, seed=seed)
        # With gradient: the prompts' words are embedded by what is trained.
        single = make_prompts(thinker, processor, table, audio[: len(table)])
        prompts = [prompt for modality in MODALITIES for prompt in single[modality] for _ in range(SAMPLES)]
        tokens = [ids for modality in MODALITIES for ids in samples[modality].tokens]
        vectors, log_probs = policy_gradients(thinker, prompts, tokens, advantages(rollouts, rewards))
    tars = rewards["tars"]
    rows = [rollout_row(index, rollouts, tars, log_probs) for index in range(len(rollouts))]
    return {
        "questions": len(table),
        "cosine": {name: _cosine(vectors[name], vectors["standard"]) for name in WEIGHTS},
        "norm": {name: rounded(float(vectors[name].norm())) for name in WEIGHTS},
        "entropy": {modality: rounded(token_entropy(samples[modality])) for modality in MODALITIES},
        **{name: rounded(value) for name, value in of_step(rows).items()},
    }


def sample(
    thinker: Thinker,
    processor: Qwen2_5OmniProcessor,
    table: pd.DataFrame,
    prompts: Mapping[str, Sequence[torch.Tensor]],
    *,
    seed: int,
) -> tuple[dict[str, Generated], list[Rollout]]:
    """Completions of questions, `SAMPLES` of each in each modality at temperature 1: as generated, and as rollouts with states.

    Args:
        thinker: The policy.
        processor: Its processor.
        table: The questions.
        prompts: Their prompts by modality.
        seed: Of the sampling.
    """
    samples: dict[str, Generated] = {}
    rollouts: list[Rollout] = []
    for modality in MODALITIES:
        repeated = [prompt for prompt in prompts[modality] for _ in range(SAMPLES)]
        done = samples[modality] = generate(
            thinker, processor, repeated, temperature=1.0, max_new_tokens=MAX_NEW_TOKENS, batch_size=64, seed=seed
        )
        states = pooled_states(thinker, repeated, done.tokens)
        rollouts += [
            Rollout(
                pair_id=table["pair_id"][index // SAMPLES],
                modality=modality,
                sample_id=index % SAMPLES,
                completion=text,
                answer=table["answer"][index // SAMPLES],
                hidden_states=states[index],
                truncated=done.truncated[index],
            )
            for index, text in enumerate(done.text)
        ]
    return samples, rollouts


def score(rollouts: Sequence[Rollout], *, seed: int) -> dict[str, Any]:
    """Rewards of the rollouts (`RewardResult`) under each of `WEIGHTS`; the references are the same for all."""
    model = str(embedder())
    embeddings = TARSReward(TARSConfig(embedder=model)).embed([rollout.completion for rollout in rollouts])
    embedded = [replace(rollout, embedding=vector) for rollout, vector in zip(rollouts, embeddings, strict=True)]
    return {
        name: TARSReward(TARSConfig(alpha=alpha, beta=beta, seed=seed, embedder=model))(embedded)
        for name, (alpha, beta) in WEIGHTS.items()
    }


def advantages(rollouts: Sequence[Rollout], rewards: Mapping[str, Any]) -> Vectors:
    """Advantages of the rollouts under each reward: by question and modality, not divided by the deviation."""
    pairs, modalities = [each.pair_id for each in rollouts], [each.modality for each in rollouts]
    return {
        name: modality_normalized_advantages(result.total.double(), pairs, modalities)
        for name, result in rewards.items()
    }


def policy_gradients(
    thinker: Thinker,
    prompts: Sequence[torch.Tensor],
    completions: Sequence[Sequence[int]],
    advantage: Mapping[str, torch.Tensor],
) -> tuple[Vectors, list[torch.Tensor]]:
    """Gradients of the token-mean policy loss, ``-1/T sum_i A_i sum_t log pi(y_it)`` with T tokens in all.

    The loss is linear in the advantages. So one backward pass is made for those of standard RL, and one for the difference
    that each reward makes to them, where there is any; TARS, the sum of the two terms, takes none of its own.

    Args:
        thinker: The policy.
        prompts: Prompt of each rollout, embedded with gradient.
        completions: Its tokens.
        advantage: Advantages ``[rollouts]`` under each of `WEIGHTS`.

    Returns:
        By reward one vector over all trained parameters; and the log-probabilities of each rollout's tokens.
    """
    parameters = list(trained_parameters(thinker).values())
    standard = advantage["standard"]
    parts = {"standard": standard, **{term: advantage[term] - standard for term in ("representation", "behavior")}}
    if not torch.allclose(sum(parts.values(), torch.zeros_like(standard)), advantage["tars"], atol=1e-5):
        raise ValueError(
            "expected the advantages under TARS to be standard RL's and what the two terms add, got others"
        )
    total = sum(map(len, completions))
    size = sum(parameter.numel() for parameter in parameters)
    found = {name: torch.zeros(size, dtype=torch.float64) for name in parts}
    log_probs: list[torch.Tensor] = []
    for start in range(0, len(prompts), MICRO_BATCH):
        rows = slice(start, start + MICRO_BATCH)
        tokens = list(completions[rows])
        log_prob = completion_logits(thinker, prompts[rows], tokens).log_softmax(-1)
        of_tokens = log_prob.gather(1, torch.tensor([ids for row in tokens for ids in row])[:, None])[:, 0]
        by_rollout = of_tokens.split([len(row) for row in tokens])
        log_probs += [each.detach() for each in by_rollout]
        sums = torch.stack([each.sum() for each in by_rollout]).double()
        for name, weights in parts.items():
            if weights[rows].any():
                loss = -(weights[rows] * sums).sum() / total
                made = torch.autograd.grad(loss, parameters, retain_graph=True)
                found[name] += torch.cat([each.flatten() for each in made]).double()
    base = found["standard"]
    return {
        "standard": base,
        "representation": base + found["representation"],
        "behavior": base + found["behavior"],
        "tars": base + found["representation"] + found["behavior"],
    }, log_probs


def token_entropy(done: Generated) -> float:
    """Entropy of the next-token distribution (nats), averaged over all tokens of some completions."""
    lengths = [len(ids) for ids in done.tokens]
    return sum(nats * length for nats, length in zip(done.entropy, lengths, strict=True)) / sum(lengths)


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float | None:
    norms = float(one.norm() * other.norm())
    return round(float(one @ other) / norms, 5) if norms else None
