"""The reward on the whole batch, between the log-prob forwards and the advantages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

from tars_rewards.errors import AdapterError
from tars_rewards.integration.completion_embedder import over_window_metric
from tars_rewards.integration.rollout_kl import RolloutKLGuard, rollout_kl
from tars_rewards.integration.run_log import RunLog
from tars_rewards.protocol import BaseScore, Rollout
from tars_rewards.reward import TARSReward
from tars_rewards.transport import PackedStates
from tars_rewards_openrlhf.dataset import ground_truth
from tars_rewards_openrlhf.flags import read_flags
from tars_rewards_openrlhf.label import Label
from tars_rewards_openrlhf.samples import EXTRAS

if TYPE_CHECKING:
    from torch import Tensor

    Extras = dict[str, Tensor]


class TARSExperienceMaker(RemoteExperienceMaker):
    """``RemoteExperienceMaker`` whose rewards are those of TARS.

    Attributes:
        step: Training step, from 1, that the next batch is of.
        metrics: To log, of the last batch.
        run_log: Keeps some of its rollouts; None: none are kept.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, options = read_flags(vars(self.args.tars))
        self.reward = TARSReward(config)
        # A rollout cut to its likeliest tokens is of another distribution, as it was asked to be.
        limit = options.max_rollout_kl if self.args.rollout.top_p == 1 else 0.0
        self._guard = RolloutKLGuard(limit, [self.args.ds.param_dtype], "--tars.max_rollout_kl")
        self.step = 1
        self.metrics: dict[str, float] = {}
        self.run_log: RunLog | None = None

    def make_experience(self, samples_list: list[Experience]) -> list[Experience]:
        """Stock forwards, then the reward of all their rollouts together."""
        # Taken out first: OpenRLHF logs and keeps what is in `info`.
        extras = [_take_extras(samples.info) for samples in samples_list]
        experiences: list[Experience] = super().make_experience(samples_list)
        started = time.perf_counter()
        pooled = self._fetch_pooled(experiences)
        rollouts = [
            rollout
            for experience, extra, states in zip(experiences, extras, pooled, strict=True)
            for rollout in rollouts_of(experience, extra, states, self.tokenizer)
        ]
        result = self.reward(rollouts, step=self.step)
        kl, log_probs = self._check_engine(experiences, rollouts)
        self._check_reference(experiences, rollouts, log_probs)
        if self.run_log is not None:
            self.run_log.rollouts(self.step, rollouts, result, log_probs)
        self.metrics = dict(result.metrics) | kl
        if self.reward.config.beta:
            self.metrics |= over_window_metric(torch.cat([extra["over_window"] for extra in extras]).tolist())
            # The longest that a completion waited for its embedding, in its place of a batch, while others generated.
            waits = torch.cat([extra["embedding_seconds"] for extra in extras])
            self.metrics["tars/seconds/embedding"] = float(waits.max())
        totals = torch.split(result.total, [len(experience.index) for experience in experiences])
        for experience, total in zip(experiences, totals, strict=True):
            experience.rewards = total
            experience.info["reward"] = total.clone()
        self.metrics["tars/seconds/finalise"] = time.perf_counter() - started
        return experiences

    def _fetch_pooled(self, experiences: list[Experience]) -> list[PackedStates | None]:
        if not self.reward.config.alpha:
            return [None] * len(experiences)
        # One list a rank, in the order in which the micro-batches were dealt out.
        run = self.actor_model_group.async_run_method
        pooled: list[PackedStates | None] = self._flatten_results(run("pop_pooled"), 1)
        sizes = [None if states is None else len(states) for states in pooled]
        expected = [len(experience.index) for experience in experiences]
        if sizes != expected:
            raise AdapterError(
                f"expected pooled states of micro-batches of {expected} rollouts, got {sizes}; is tars-rewards installed "
                "where the policy runs, and does anything else run forwards of it?"
            )
        return pooled

    def _check_engine(
        self, experiences: list[Experience], rollouts: list[Rollout]
    ) -> tuple[dict[str, float], list[Tensor]]:
        """Compare the two engines; returns metrics, and the actor's log-probs of each completion's tokens."""
        sampled: list[Tensor] = []
        actor: list[Tensor] = []
        for experience in experiences:
            mask = experience.action_mask.bool()
            sampled += [row[kept] for row, kept in zip(experience.rollout_log_probs, mask, strict=True)]
            actor += [row[kept] for row, kept in zip(experience.action_log_probs, mask, strict=True)]
        kl = rollout_kl([rollout.modality for rollout in rollouts], sampled, actor)
        self._guard.check(kl, self.step)
        return {f"tars/rollout_k3_kl/{modality}": value for modality, value in kl.items()}, actor

    def _check_reference(self, experiences: list[Experience], rollouts: list[Rollout], actor: list[Tensor]) -> None:
        """Before the first update policy and reference are one model; a KL term hides that one was loaded wrong."""
        if self.step > 1 or experiences[0].base_action_log_probs is None:
            return
        reference = [
            row[kept]
            for experience in experiences
            for row, kept in zip(experience.base_action_log_probs, experience.action_mask.bool(), strict=True)
        ]
        kl, limit = rollout_kl([rollout.modality for rollout in rollouts], reference, actor), self._guard.limit
        if limit and not all(value <= limit for value in kl.values()):
            raise AdapterError(
                f"step 1: policy and reference, both loaded from {self.args.actor.model_name_or_path}, disagree before any "
                f"update: k3 KL {kl}, expected at most {limit:.0e}. One of the two was not loaded right, or did not get the "
                "audio; check the checkpoint's files and versions (--tars.max_rollout_kl 0 switches this off)"
            )


def rollouts_of(experience: Experience, extras: Extras, pooled: PackedStates | None, tokenizer: Any) -> list[Rollout]:
    """Rollouts of a micro-batch, in its order.

    Args:
        experience: OpenRLHF's micro-batch.
        extras: What the executor found out about each completion.
        pooled: States [batch, layers, hidden], zero where there was no token to pool over; None: not needed.
        tokenizer: Decodes completions.
    """
    rollouts = []
    for row, text in enumerate(experience.labels):
        label = Label.load(text)
        generated = torch.nn.functional.pad(experience.action_mask[row].bool(), (1, 0))
        rollouts.append(
            Rollout(
                pair_id=label.pair_id,
                modality=label.modality,
                answer=ground_truth(label.answer),
                sample_id=int(extras["sample"][row]),
                completion=tokenizer.decode(experience.sequences[row][generated], skip_special_tokens=True),
                hidden_states=None if pooled is None else pooled[row],
                truncated=bool(experience.truncated[row]),
                embedding=extras["embedding"][row] if "embedding" in extras else None,
                embedding_failed="embedder_failed" in extras and bool(extras["embedder_failed"][row]),
                base=BaseScore(
                    bool(extras["correct"][row]), bool(extras["format"][row]), float(experience.rewards[row])
                ),
            )
        )
    return rollouts


def _take_extras(info: dict[str, Any]) -> Extras:
    return {name.removeprefix(EXTRAS): info.pop(name) for name in list(info) if name.startswith(EXTRAS)}
