"""The arms that are no RL: ``sft`` and ``distillation``, each a plain loop in torch, in one thread.

No framework trains here, because none is needed: these are the controls that the RL arms, which stock verl trains, are
held against. What they have in common with those: the base, the order of the questions (the sampler of verl's adapter),
8 questions a step with 4 spoken and 4 written completions sampled of each at temperature 1, the trained parameters
(`policies`), one update a step, and verl's optimizer: AdamW, gradients clipped to a norm of 1, a cosine schedule to 0.

================  ====================================================================================================
``sft``           cross-entropy, given the spoken question, of the written completions that are correct. They are the
                  *base's*, sampled during the step; the policy's own spoken completions are sampled for the log only
``distillation``  on-policy: the policy's own spoken completions, and over each of their tokens the reverse KL divergence
                  KL(policy | teacher), exact over the vocabulary, of the policy that heard the question to the frozen
                  base that reads it. The policy's written completions are sampled for the log only
================  ====================================================================================================

Either loss is the mean over the tokens of the step. The divergence is differentiated for the completions as they are, not
through their sampling.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np
import pandas as pd
import paths  # noqa: F401  (lets the demo's modules be found)
import torch
from evaluate import MODALITIES, make_prompts, read_table
from gradients import token_entropy
from heard import heard
from inference import generate
from model import save_checkpoint
from policies import MAX_NEW_TOKENS, one_thread, trained_parameters
from step_log import Log, of_step, rounded
from supervised_arms import ARMS, SAMPLES, Step, Trainer
from transformers import get_cosine_schedule_with_warmup

from tars_rewards import TARSReward
from tars_rewards.integration.pairs import find_pairs
from tars_rewards_verl.pairs import PairSampler

QUESTIONS = 8
MICRO_BATCH = 8
BETAS, WEIGHT_DECAY, CLIP_NORM = (0.9, 0.999), 0.01, 1.0  # verl's defaults


def train(
    arm: str,
    base_dir: Path,
    out_dir: Path,
    *,
    data: Path,
    seed: int,
    steps: int,
    learning_rate: float,
    save_at: Sequence[int] | None = None,
    heard_cache: Path | None = None,
) -> tuple[dict[int, Path], Log]:
    """Train a base.

    Args:
        arm: "sft" or "distillation".
        base_dir: Model directory of the base.
        out_dir: Directory of the run; gets ``checkpoints/step_N`` and ``metrics.jsonl``, those of an earlier run are removed.
        data: Directory of the data set.
        seed: Of the order of the questions and of the sampling.
        steps: Updates.
        learning_rate: At the first step; it falls to 0 along a cosine.
        save_at: Steps after which a checkpoint is saved, in Hugging Face's layout; None: after every quarter of the steps, and
            the last.
        heard_cache: Directory in which the outputs of the audio tower are kept; None: ``heard`` beside the data.

    Returns:
        The checkpoints by step, and the log: one value a step of every metric of `step_log.of_step` that does not ask for
        hidden states or embeddings, and of ``loss``, ``learned`` (completions learned from), ``entropy``,
        ``gradient_norm``, ``seconds``, ``seconds_generation``, ``seconds_update``. Where the base answers the written
        questions, metrics of the written completions are named ``…/base_text`` instead of ``…/text``.

    Raises:
        ValueError: The arm is none of the two, or a step to save at is none of the training's.
        RuntimeError: A gradient is not finite.
    """
    if arm not in ARMS:
        raise ValueError(f"expected an arm of {', '.join(ARMS)}; got {arm!r}")
    every = max(1, steps // 4)
    wanted = sorted({*range(every, steps + 1, every), steps} if save_at is None else set(save_at))
    if wanted and not 0 < wanted[0] <= wanted[-1] <= steps:
        raise ValueError(f"expected to save after steps of 1 to {steps}, got {wanted}")
    checkpoints, metrics = out_dir / "checkpoints", out_dir / "metrics.jsonl"
    shutil.rmtree(checkpoints, ignore_errors=True)
    metrics.unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    with one_thread():
        trainer = ARMS[arm](base_dir)
        table = read_table(data, "train")
        cache = data.parent / "heard" if heard_cache is None else heard_cache
        audio = heard(trainer.policy, trainer.processor, table, cache / "train.safetensors")
        parameters = list(trained_parameters(trainer.policy).values())
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
        schedule = get_cosine_schedule_with_warmup(optimizer, 0, steps)
        figures, saved = [], {}
        for number, picks in enumerate(islice(question_batches(data / "train.parquet", seed), steps), 1):
            figures.append(_step(trainer, optimizer, table.iloc[picks], [audio[pick] for pick in picks], seed, number))
            schedule.step()
            with metrics.open("a") as stream:
                stream.write(json.dumps({"step": number, "data": figures[-1]}) + "\n")
            if number in wanted:
                saved[number] = checkpoints / f"step_{number}"
                save_checkpoint(trainer.policy, saved[number])
    log = {name: [rounded(figure[name]) for figure in figures] for name in figures[0]}
    return saved, {name: values for name, values in log.items() if any(value is not None for value in values)}


def question_batches(train: Path, seed: int) -> Iterator[list[int]]:
    """The questions of each step, as their places among the spoken rows: in the order in which verl's arms get them."""
    frame = pd.read_parquet(train, columns=["pair_id", "modality"])
    pairs = find_pairs(
        frame["pair_id"].tolist(), frame["modality"].tolist(), target_modality="speech", anchor_modality="text"
    )
    place = {row: index for index, row in enumerate(np.flatnonzero(frame["modality"] == "speech").tolist())}
    sampler = PairSampler(pairs, shuffle=True, seed=seed)
    if len(pairs) < QUESTIONS:
        raise ValueError(f"expected at least {QUESTIONS} questions in {train}, got {len(pairs)}")
    for epoch in count():
        spoken = [place[row] for row in sampler.order(epoch)[::2]]
        for start in range(0, len(spoken) - QUESTIONS + 1, QUESTIONS):
            yield spoken[start : start + QUESTIONS]


def _step(
    trainer: Trainer,
    optimizer: torch.optim.Optimizer,
    table: pd.DataFrame,
    audio: Sequence[torch.Tensor],
    seed: int,
    number: int,
) -> dict[str, float | None]:
    started = time.monotonic()
    step = _sample(trainer, table, audio, seed, number)
    sampled = time.monotonic()
    learned = trainer.learned(step)
    # Rows of like length go together: less padding.
    learned.sort(key=lambda each: len(step.audio[each[0] // SAMPLES]))
    tokens = sum(len(ids) for _, ids in learned)
    optimizer.zero_grad()
    total = 0.0
    for start in range(0, len(learned), MICRO_BATCH):
        rows, completions = zip(*learned[start : start + MICRO_BATCH], strict=True)
        loss = trainer.loss(step, rows, completions) / tokens
        loss.backward()
        total += loss.item()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM, error_if_nonfinite=True)
    optimizer.step()
    ended = time.monotonic()
    return _figures(trainer, step) | {
        "loss": total if learned else None,
        "learned": len(learned),
        "gradient_norm": float(norm),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "seconds": ended - started,
        "seconds_generation": sampled - started,
        "seconds_update": ended - sampled,
    }


@torch.no_grad()
def _sample(trainer: Trainer, table: pd.DataFrame, audio: Sequence[torch.Tensor], seed: int, number: int) -> Step:
    reward, samples, scores = TARSReward(), {}, {}
    for index, modality in enumerate(MODALITIES):
        model = trainer.writer if modality == "text" else trainer.policy
        prompts = make_prompts(model, trainer.processor, table, audio)[modality]
        done = samples[modality] = generate(
            model,
            trainer.processor,
            [prompt for prompt in prompts for _ in range(SAMPLES)],
            temperature=1.0,
            max_new_tokens=MAX_NEW_TOKENS,
            seed=int(np.random.SeedSequence([seed, number, index]).generate_state(1)[0]),
        )
        answers = [answer for answer in table["answer"] for _ in range(SAMPLES)]
        scores[modality] = [
            reward.base(text, answer, truncated=cut)
            for text, answer, cut in zip(done.text, answers, done.truncated, strict=True)
        ]
    return Step(table, audio, samples, scores)


def _figures(trainer: Trainer, step: Step) -> dict[str, float | None]:
    """The step's figures, as those of an RL arm's rollouts."""
    rows = [
        {
            "id": step.table["pair_id"].iloc[row // SAMPLES],
            "modality": modality,
            "completion": done.text[row],
            "tokens": len(done.tokens[row]),
            "truncated": done.truncated[row],
            "accuracy": score.correct,
            "format": score.format,
            "total": score.reward,
            "representation": None,
            "behavior": None,
        }
        for modality, done in step.samples.items()
        for row, score in enumerate(step.scores[modality])
    ]
    figures = of_step(rows) | {f"entropy/{modality}": token_entropy(done) for modality, done in step.samples.items()}
    del figures["advantage_cosine"]  # of advantages, which there are none of
    if trainer.writer is trainer.base:
        return {name.replace("/text", "/base_text"): value for name, value in figures.items()}
    return figures
