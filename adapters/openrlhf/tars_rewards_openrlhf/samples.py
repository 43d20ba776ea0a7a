"""Completions of a batch in the order of questions, modalities and samples."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from tars_rewards.errors import IncompletePairError
from tars_rewards_openrlhf.label import Label

EXTRAS = "tars_"
"""Prefix of the entries of ``Experience.info`` in which a completion's scores and embedding travel to the reward."""


class PairSamplesGenerator(SamplesGenerator):
    """Stock generation; completions come back ordered by (question, modality, sample), with pairs whole."""

    def _generate_vllm(
        self, dataloader_iter: Any, num_prompts: int, dynamic_filtering: bool, **generate_kwargs: Any
    ) -> tuple[list[Experience], int, bool]:
        experiences, consumed, exhausted = super()._generate_vllm(
            dataloader_iter, num_prompts, dynamic_filtering, **generate_kwargs
        )
        samples = generate_kwargs.get("n_samples_per_prompt", self.args.rollout.n_samples_per_prompt)
        return order(experiences, samples=samples, prompts=consumed), consumed, exhausted

    def _process_response_into_experience(self, response: dict[str, Any], **generate_kwargs: Any) -> Experience:
        experience = super()._process_response_into_experience(response, **generate_kwargs)
        # Beside the stock `extra_logs`, of which only the first number survives.
        for name, value in response["tars"].items():
            experience.info[EXTRAS + name] = torch.as_tensor(value, dtype=torch.float32)[None]
        return experience


def order(experiences: list[Experience], *, samples: int, prompts: int) -> list[Experience]:
    """Sort completions by (question, modality, sample), and number the samples of each prompt.

    OpenRLHF returns prompts as they finish, and the samples of a prompt in the order in which they were asked for.

    Args:
        experiences: One completion each.
        samples: Completions asked for of each prompt.
        prompts: Prompts that were sent.

    Raises:
        IncompletePairError: Completions are missing, or a question has only one of its prompts in the batch.
    """
    counts: Counter[tuple[str, str]] = Counter()
    keyed = []
    for experience in experiences:
        label = Label.load(experience.labels[0])
        sample = counts[label.pair_id, label.modality]
        counts[label.pair_id, label.modality] += 1
        experience.info[f"{EXTRAS}sample"] = torch.tensor([float(sample)])
        keyed.append(((label.pair_id, label.modality, sample), experience))
    lost = {prompt: samples - count for prompt, count in counts.items() if count != samples}
    if lost or len(counts) != prompts:
        raise IncompletePairError(
            f"expected {samples} completions of each of {prompts} prompts, got {len(experiences)} of {len(counts)}; "
            f"missing: {lost}; look for an error of the rollout engine above"
        )
    halves = [pair for pair, members in Counter(pair for pair, _ in counts).items() if members != 2]
    if halves:
        raise IncompletePairError(
            f"{len(halves)} questions of the batch have one prompt only (first: {halves[0]!r}); a question's two prompts "
            "must be drawn together: is --rollout.batch_size even?"
        )
    return [experience for _, experience in sorted(keyed, key=lambda item: item[0])]
