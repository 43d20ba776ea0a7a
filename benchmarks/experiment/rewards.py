"""The rewards of the controls, as `reward.custom=rewards:NAME`, and what it is to reason.

====================  ==========================================================================================
class                 what differs from TARS
====================  ==========================================================================================
SymmetricReward       written completions are aligned too, each towards a correct spoken one of the same question
FrozenTeacherReward   spoken completions are aligned towards what the untrained base wrote, not the policy itself
ReasoningFormat…      the format is rewarded only where the completion reasons
====================  ==========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from tars_rewards import Rollout
from tars_rewards.batch import RolloutBatch
from tars_rewards.errors import ConfigError
from tars_rewards.protocol import BaseScore, RewardResult
from tars_rewards.reward import TARSReward as CoreReward
from tars_rewards.verl import TARSReward

if TYPE_CHECKING:
    from torch import Tensor

Batch = Sequence[Rollout] | RolloutBatch
MINIMUM_WORDS = 5
"""Words that a think block must have to count as reasoning: a whole step of any of the questions has more."""
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_BOTH = ("tars/pairs/count", "tars/reward_gap")


def reasons(completion: str) -> bool:
    """Whether a completion has a closed think block of at least `MINIMUM_WORDS` words."""
    thought = _THOUGHT.search(completion)
    return thought is not None and len(thought[1].split()) >= MINIMUM_WORDS


class SymmetricReward(TARSReward):
    """TARS without its asymmetry: either modality is the other's moving reference.

    A speech completion is rewarded as by TARS. A text completion earns the same terms with the same weights, compared with
    one correct speech completion of its question; it has none where no speech completion is correct.
    """

    def __call__(self, rollouts: Batch, *, step: int = 0, representation: Any = None) -> RewardResult:
        """Score a batch; see `tars_rewards.TARSReward.__call__`."""
        _refuse_states_elsewhere(representation)
        rollouts = self._embedded(_listed(rollouts))
        config = self.config
        mirrored = replace(config, target_modality=config.anchor_modality, anchor_modality=config.target_modality)
        speech = super().__call__(rollouts, step=step)
        text = CoreReward(mirrored)(rollouts, step=step)
        is_text = torch.tensor([rollout.modality == config.anchor_modality for rollout in rollouts])

        def choose(of_text: Tensor, of_speech: Tensor) -> Tensor:
            return torch.where(is_text, of_text, of_speech)

        metrics = {**speech.metrics, **_of_modality(config.anchor_modality, text.metrics)}
        metrics["tars/pairs/without_speech_reference"] = text.metrics["tars/pairs/without_reference"]
        return RewardResult(
            total=choose(text.total, speech.total),
            components={name: choose(text.components[name], value) for name, value in speech.components.items()},
            valid={name: choose(text.valid[name], value) for name, value in speech.valid.items()},
            reference=choose(text.reference, speech.reference),
            metrics=metrics,
        )

    def _embedded(self, rollouts: list[Rollout]) -> list[Rollout]:
        """Every completion with its embedding: verl's reward loop leaves out wrong text, which TARS never compares."""
        missing = [
            index
            for index, rollout in enumerate(rollouts)
            if self.config.beta and rollout.embedding is None and rollout.completion.strip()
        ]
        vectors = self.embed([rollouts[index].completion for index in missing])
        for index, vector in zip(missing, vectors, strict=True):
            rollouts[index] = replace(rollouts[index], embedding=vector)
        return rollouts


class FrozenTeacherReward(TARSReward):
    """TARS whose reference is frozen: one correct text completion of every question, sampled from the base before training.

    Args:
        teacher: File made by `teacher.write_teacher`.
        **kwargs: See `TARSReward`.

    Raises:
        ConfigError: There is no such file.
    """

    def __init__(self, *, teacher: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.teacher = read_teacher(Path(teacher), self.config.anchor_modality)

    def __call__(self, rollouts: Batch, *, step: int = 0, representation: Any = None) -> RewardResult:
        """Score a batch; see `tars_rewards.TARSReward.__call__`. The references are not in the batch: all are -1."""
        _refuse_states_elsewhere(representation)
        config, rollouts = self.config, _listed(rollouts)
        is_speech = torch.tensor([rollout.modality == config.target_modality for rollout in rollouts])
        where = torch.nonzero(is_speech).flatten()
        speech = [rollouts[index] for index in where.tolist()]
        references = [self.teacher[pair] for pair in {each.pair_id for each in speech} if pair in self.teacher]
        aligned = super().__call__([*speech, *references], step=step)
        plain = CoreReward(replace(config, alpha=0, beta=0, terms=None))(rollouts, step=step)

        def choose(of_batch: Tensor, of_speech: Tensor) -> Tensor:
            chosen = of_batch.clone()
            chosen[where] = of_speech[: len(where)]
            return chosen

        nowhere = torch.zeros(len(rollouts))
        return RewardResult(
            total=choose(plain.total, aligned.total),
            components={
                name: choose(plain.components.get(name, nowhere), value) for name, value in aligned.components.items()
            },
            valid={name: choose(plain.valid.get(name, nowhere.bool()), value) for name, value in aligned.valid.items()},
            reference=torch.full((len(rollouts),), -1),
            metrics={
                **aligned.metrics,
                **_of_modality(config.anchor_modality, plain.metrics),
                **{name: plain.metrics[name] for name in _BOTH if name in plain.metrics},
            },
        )


class ReasoningFormatReward(TARSReward):
    """The format counts only where the completion reasons: standard RL with a format reward that demands reasoning."""

    def base(self, completion: str, answer: str | None, *, truncated: bool = False) -> BaseScore:
        """Score one completion by itself; see `tars_rewards.TARSReward.base`."""
        score = super().base(completion, answer, truncated=truncated)
        if not score.format or reasons(completion):
            return score
        return BaseScore(score.correct, False, score.reward - self.config.format_weight)

    def __call__(self, rollouts: Batch, *, step: int = 0, representation: Any = None) -> RewardResult:
        """Score a batch; see `tars_rewards.TARSReward.__call__`. Base rewards that came with rollouts stay as they are."""
        scored = [
            each
            if each.base is not None
            else replace(each, base=self.base(each.completion, each.answer, truncated=each.truncated))
            for each in _listed(rollouts)
        ]
        return super().__call__(scored, step=step, representation=representation)


def read_teacher(path: Path, modality: str) -> dict[str, Rollout]:
    """The teacher's completion of each question that it has answered right, by pair."""
    if not path.is_file():
        raise ConfigError(f"there is no teacher at {path}; make it by benchmarks/experiment/teacher.py")
    table = pd.read_parquet(path)
    return {
        row.pair_id: Rollout(
            pair_id=row.pair_id,
            modality=modality,
            sample_id=0,
            completion=row.completion,
            hidden_states=np.stack(row.states).astype(np.float32),
            embedding=np.asarray(row.embedding, np.float32),
            base=BaseScore(correct=True, format=True, reward=0.0),
        )
        for row in table.itertuples()
    }


def _listed(rollouts: Batch) -> list[Rollout]:
    return list(rollouts.rollouts if isinstance(rollouts, RolloutBatch) else rollouts)


def _of_modality(modality: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if f"/{modality}" in name}


def _refuse_states_elsewhere(representation: Any) -> None:
    if representation is not None:
        raise ConfigError("this reward compares hidden states itself; set finaliser_workers to 0")
