"""The representation term by several processes, each for whole pairs, so that none holds the states of a whole step.

They fetch the states from TransferQueue themselves; the trainer sends and gets what is a few bytes a rollout. Rewards do
not depend on how pairs are spread.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tars_rewards.batch import RolloutBatch
from tars_rewards.config import TARSConfig
from tars_rewards.protocol import RepresentationFunction, Rollout, TermValue
from tars_rewards.representation import representation_term
from tars_rewards_verl import batch as rows_of

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Float, Int
    from torch import Tensor
    from verl.utils.transferqueue_utils import KVBatchMeta


class RepresentationShards:
    """Ray actors that compute `representation_term`, a core each.

    Args:
        config: The reward's settings.
        workers: Number of actors.
    """

    def __init__(self, config: TARSConfig, workers: int) -> None:
        import ray

        actor = ray.remote(num_cpus=1)(_Shard)
        self._shards = [actor.remote(config) for _ in range(workers)]

    def of(self, stored: KVBatchMeta, rows: Sequence[int]) -> RepresentationFunction:
        """What stands for `representation_term` where the states are in TransferQueue.

        Args:
            stored: The step's batch.
            rows: Which of its rows the rollouts are, in their order.

        Returns:
            A function that raises what `representation_term` does, and AdapterError where there are no states.
        """
        return functools.partial(self._term, _select(stored, rows))

    def _term(
        self, stored: KVBatchMeta, batch: RolloutBatch, reference: Int[Tensor, " rollouts"]
    ) -> tuple[TermValue, Float[Tensor, "rollouts chosen"]]:
        import ray

        pending = []
        shares = split_pairs(batch.pair, len(self._shards))
        for shard, rows in zip(self._shards, shares, strict=False):  # fewer pairs than shards leave some without work
            position = np.full(len(batch) + 1, -1)  # the last is where -1, no reference, points to
            position[rows] = np.arange(len(rows))
            rollouts = [_without_vectors(batch, row) for row in rows.tolist()]
            pending.append(shard.term.remote(_select(stored, rows), rollouts, position[reference.numpy()[rows]]))
        term, found = TermValue.nowhere(len(batch)), ray.get(pending)
        # A share without any completion that has states knows of no layer.
        per_layer = np.zeros((len(batch), max(cosines.shape[1] for *_, cosines in found)), np.float32)
        for rows, (values, valid, cosines) in zip(shares, found, strict=True):
            term.values.numpy()[rows], term.valid.numpy()[rows] = values, valid
            per_layer[rows] = cosines if cosines.size else 0
        return term, torch.from_numpy(per_layer)


def split_pairs(pair: Int[np.ndarray, " rollouts"], shares: int) -> list[Int[np.ndarray, " rows"]]:
    """Rows of each share: whole pairs, as evenly as their number allows, and no empty share.

    Example:
        >>> [rows.tolist() for rows in split_pairs(np.array([0, 1, 0, 2, 1]), 2)]
        [[0, 1, 2, 4], [3]]
    """
    parts = np.array_split(np.unique(pair), shares)
    return [np.flatnonzero(np.isin(pair, part)) for part in parts if part.size]


def _select(stored: KVBatchMeta, rows: Iterable[int]) -> KVBatchMeta:
    chosen = list(rows)
    return type(stored)(
        keys=[stored.keys[row] for row in chosen],
        tags=[stored.tags[row] for row in chosen],
        partition_id=stored.partition_id,
    )


def _without_vectors(batch: RolloutBatch, row: int) -> Rollout:
    sample = int(batch.sample_id[row])
    return dataclasses.replace(batch.rollouts[row], sample_id=sample, embedding=None, hidden_states=None)


class _Shard:
    def __init__(self, config: TARSConfig) -> None:
        self._config = config

    def term(
        self, stored: KVBatchMeta, rollouts: Sequence[Rollout], reference: Int[np.ndarray, " rollouts"]
    ) -> tuple[npt.NDArray[Any], ...]:
        rows = range(len(rollouts))
        states = rows_of.pooled_states(rows_of.fetch(stored, rows, rows_of.STATES))
        whole = [
            dataclasses.replace(rollout, hidden_states=each) for rollout, each in zip(rollouts, states, strict=True)
        ]
        batch = RolloutBatch.from_rollouts(whole, self._config)
        layers, center = self._config.layers, self._config.center
        term, per_layer = representation_term(batch, torch.from_numpy(reference), layers=layers, center=center)
        return term.values.numpy(), term.valid.numpy(), per_layer.numpy()
