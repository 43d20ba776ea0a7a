"""Results as flat rows, one a completion: what a file of rewards holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tars_rewards.protocol import RewardResult, Rollout
from tars_rewards.scoring.question import Question

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_ALWAYS_THERE = ("accuracy", "format")


@dataclass(frozen=True, eq=False)
class ScoredQuestion:
    """A question with the rewards of its completions; everything in the order of `rollouts`."""

    question: Question
    rollouts: list[Rollout]  #: one a completion, with hidden states where the representation term is in force
    result: RewardResult
    """Rewards. `reference` counts in `rollouts`; `metrics` is empty, for they describe a batch of questions."""
    log_probs: list[Float[Tensor, " tokens"] | None]  #: of each completion's tokens (nats); None without a model

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a completion, of plain values.

        ``id``, ``modality``, ``sample_id``, ``completion``, ``answer``, ``truncated``; ``total``, ``accuracy``, ``format``;
        the alignment terms, None where they are not valid; ``reference``, the ``sample_id`` of the anchor completion that
        it was compared with; ``log_prob``, the sum over the completion's ``tokens`` in nats.
        """
        return [self._row(index) for index in range(len(self.rollouts))]

    def _row(self, index: int) -> dict[str, Any]:
        rollout, result, log_probs = self.rollouts[index], self.result, self.log_probs[index]
        reference = int(result.reference[index])
        return {
            "id": self.question.id,
            "modality": rollout.modality,
            "sample_id": rollout.sample_id,
            "completion": rollout.completion,
            "answer": rollout.answer,
            "truncated": rollout.truncated,
            "total": float(result.total[index]),
            **{name: self._component(name, index) for name in result.components},
            "reference": None if reference < 0 else self.rollouts[reference].sample_id,
            "log_prob": None if log_probs is None else float(log_probs.double().sum()),
            "tokens": None if log_probs is None else len(log_probs),
        }

    def _component(self, name: str, index: int) -> float | None:
        value = float(self.result.components[name][index])
        return value if name in _ALWAYS_THERE or bool(self.result.valid[name][index]) else None


def select(result: RewardResult, rows: slice) -> RewardResult:
    """The part of a batch's result that belongs to one question, whose rollouts are adjacent."""
    reference = result.reference[rows].clone()
    reference[reference >= 0] -= rows.start

    def part(columns: Mapping[str, Any]) -> dict[str, Any]:
        return {name: column[rows] for name, column in columns.items()}

    layers = None if result.layer_similarity is None else result.layer_similarity[rows]
    return RewardResult(result.total[rows], part(result.components), part(result.valid), reference, {}, layers)
