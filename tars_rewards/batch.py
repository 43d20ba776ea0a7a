"""A batch of rollouts as columns: who belongs to which pair, and what can be compared at all."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from tars_rewards.errors import ConfigError, DuplicateRolloutError, ModalityError, RolloutError
from tars_rewards.protocol import BaseScore, Rollout

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

    from tars_rewards.config import TARSConfig

_BOOLEAN = (bool, np.bool_)
_LARGEST = float(np.finfo(np.float32).max)  # of a base reward, since totals are float32


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """Rollouts of a step with their identity checked; every column is in the order of the rollouts."""

    rollouts: Sequence[Rollout]
    pair_ids: Sequence[str]  #: the distinct pairs, in order of appearance
    pair: Int[np.ndarray, " rollouts"]  #: index into `pair_ids`
    sample_id: Int[np.ndarray, " rollouts"]
    is_target: Bool[np.ndarray, " rollouts"]  #: target modality; otherwise anchor modality
    scorable: Bool[np.ndarray, " rollouts"]  #: can take part in an alignment term: not empty, not left out as truncated
    config: TARSConfig  #: the settings that it was made by

    def __len__(self) -> int:
        return len(self.rollouts)

    def check_config(self, config: TARSConfig) -> None:
        """Check that a reward's settings see the same targets, anchors and scorable rollouts as the batch's.

        Raises:
            ConfigError: A setting that the batch depends on differs.
        """
        for name in ("target_modality", "anchor_modality", "skip_truncated"):
            ours, theirs = getattr(self.config, name), getattr(config, name)
            if ours != theirs:
                raise ConfigError(
                    f"the RolloutBatch was made with {name}={ours!r}, the reward has {theirs!r}; make it by "
                    "RolloutBatch.from_rollouts(rollouts, reward.config)"
                )

    def describe(self, index: int) -> str:
        """Identity of one rollout, for messages."""
        rollout = self.rollouts[index]
        return f"rollout {index} (pair {rollout.pair_id!r}, {rollout.modality}, sample {self.sample_id[index]})"

    @classmethod
    def from_rollouts(cls, rollouts: Sequence[Rollout], config: TARSConfig) -> RolloutBatch:
        """Check the identities of a batch and lay it out as columns.

        Args:
            rollouts: At least one rollout, in any order; the two modalities of a pair may have unequal counts.
            config: Names the two modalities and says whether truncated rollouts are left out.

        Raises:
            RolloutError: The batch is empty, or holds something that is not a rollout or has a field of a wrong type.
            ModalityError: A modality is neither the target's nor the anchor's.
            DuplicateRolloutError: Two rollouts have the same (pair_id, modality, sample_id).
        """
        if not rollouts:
            raise RolloutError("expected at least one rollout, got an empty batch; skip the call for an empty batch")
        modalities = (config.anchor_modality, config.target_modality)
        codes: dict[str, int] = {}
        seen: dict[tuple[int, str, int], int] = {}
        counts: dict[tuple[int, str], int] = {}
        pair, sample_id = np.empty(len(rollouts), np.int64), np.empty(len(rollouts), np.int64)
        for index, rollout in enumerate(rollouts):
            _check(rollout, index)
            if rollout.modality not in modalities:
                raise ModalityError(
                    f"rollout {index} (pair {rollout.pair_id!r}) has modality {rollout.modality!r}; expected "
                    f"{config.target_modality!r} or {config.anchor_modality!r}; correct the rollout, or set "
                    "target_modality and anchor_modality in the config"
                )
            code = codes.setdefault(rollout.pair_id, len(codes))
            order = counts.get((code, rollout.modality), 0)
            counts[code, rollout.modality] = order + 1
            sample = order if rollout.sample_id is None else operator.index(rollout.sample_id)
            first = seen.setdefault((code, rollout.modality, sample), index)
            if first != index:
                raise DuplicateRolloutError(
                    f"rollouts {first} and {index} are both (pair {rollout.pair_id!r}, {rollout.modality}, sample "
                    f"{sample}); expected every (pair_id, modality, sample_id) once in a batch; "
                    + _advice(rollouts, first, index)
                )
            pair[index], sample_id[index] = code, sample
        return cls(
            config=config,
            rollouts=rollouts,
            pair_ids=list(codes),
            pair=pair,
            sample_id=sample_id,
            is_target=np.array([rollout.modality == config.target_modality for rollout in rollouts]),
            scorable=np.array(
                [
                    bool(rollout.completion.strip()) and not (config.skip_truncated and rollout.truncated)
                    for rollout in rollouts
                ]
            ),
        )


def _check(rollout: object, index: int) -> None:
    if not isinstance(rollout, Rollout):
        raise RolloutError(f"item {index} of the batch is a {type(rollout).__name__}; expected tars_rewards.Rollout")
    expected = ""
    if not isinstance(rollout.pair_id, str):
        expected = f"a str pair_id, got {rollout.pair_id!r}; use str(…)"
    elif not isinstance(rollout.completion, str):
        expected = f"a str completion, got {type(rollout.completion).__name__}; decode the token ids first"
    elif rollout.sample_id is not None and not _is_int64(rollout.sample_id):
        expected = f"an integer sample_id of 64 bits or None, got {rollout.sample_id!r}"
    elif not isinstance(rollout.truncated, _BOOLEAN):
        expected = f"truncated to be True or False, got {rollout.truncated!r}"
    elif not isinstance(rollout.embedding_failed, _BOOLEAN):
        expected = f"embedding_failed to be True or False, got {rollout.embedding_failed!r}"
    elif rollout.base is not None and not _is_base_score(rollout.base):
        expected = f"a BaseScore(correct: bool, format: bool, reward: finite) or None as base, got {rollout.base!r}"
    elif rollout.base is None and rollout.correct is not None and not isinstance(rollout.correct, _BOOLEAN):
        expected = f"correct to be True, False or None, got {rollout.correct!r}; a graded score goes into base"
    if expected:
        raise RolloutError(f"rollout {index} (pair {rollout.pair_id!r}): expected {expected}")


def _is_int64(value: object) -> bool:
    try:
        return -(2**63) <= operator.index(value) < 2**63  # type: ignore[arg-type]
    except TypeError:
        return False


def _advice(rollouts: Sequence[Rollout], first: int, second: int) -> str:
    unnamed = [index for index in (first, second) if rollouts[index].sample_id is None]
    if unnamed:
        return (
            f"rollout {unnamed[0]} has no sample_id and got its order of appearance; give every rollout of a question "
            "and modality a sample_id, or none"
        )
    return "number the samples, and drop padding rows that copy another row"


def _is_base_score(base: object) -> bool:
    return (
        isinstance(base, BaseScore)
        and isinstance(base.correct, _BOOLEAN)
        and isinstance(base.format, _BOOLEAN)
        and isinstance(base.reward, (float, Real))  # `float` first: an abstract class takes ten times as long
        and abs(base.reward) <= _LARGEST
    )
