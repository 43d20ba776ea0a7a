"""Results as flat rows, one a completion: what a file of rewards holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return [rollout_row(index, self.rollouts, self.result, self.log_probs) for index in range(len(self.rollouts))]


def rollout_row(
    index: int,
    rollouts: Sequence[Rollout],
    result: RewardResult,
    log_probs: Sequence[Float[Tensor, " tokens"] | None],
) -> dict[str, Any]:
    """The row of one rollout of those that were rewarded together; see `ScoredQuestion.rows`.

    Args:
        index: Which one.
        rollouts: All of them.
        result: Their rewards.
        log_probs: Of the tokens of each completion (nats); None: not known.
    """
    rollout, of_tokens = rollouts[index], log_probs[index]
    reference = int(result.reference[index])
    return {
        "id": rollout.pair_id,
        "modality": rollout.modality,
        "sample_id": rollout.sample_id,
        "completion": rollout.completion,
        "answer": rollout.answer,
        "truncated": rollout.truncated,
        "total": float(result.total[index]),
        **{name: _component(name, index, result) for name in result.components},
        "reference": None if reference < 0 else rollouts[reference].sample_id,
        "log_prob": None if of_tokens is None else float(of_tokens.double().sum()),
        "tokens": None if of_tokens is None else len(of_tokens),
    }


def _component(name: str, index: int, result: RewardResult) -> float | None:
    value = float(result.components[name][index])
    return value if name in _ALWAYS_THERE or bool(result.valid[name][index]) else None


def select(result: RewardResult, rows: slice) -> RewardResult:
    """The part of a batch's result that belongs to one question, whose rollouts are adjacent."""
    reference = result.reference[rows].clone()
    reference[reference >= 0] -= rows.start

    def part(columns: Mapping[str, Any]) -> dict[str, Any]:
        return {name: column[rows] for name, column in columns.items()}

    layers = None if result.layer_similarity is None else result.layer_similarity[rows]
    return RewardResult(result.total[rows], part(result.components), part(result.valid), reference, {}, layers)
