"""Advantages normalised within each modality of each question."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tars_rewards.errors import RolloutError

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Float
    from torch import Tensor

_EPSILON = 1e-6  # as in verl and TRL


def modality_normalized_advantages(
    totals: Float[Tensor, " rollouts"] | Sequence[float] | npt.NDArray[Any],
    pair_ids: Sequence[Hashable] | Tensor | npt.NDArray[Any],
    modalities: Sequence[Hashable] | Tensor | npt.NDArray[Any],
    *,
    scale: bool = False,
) -> Float[Tensor, " rollouts"]:
    """Advantage of each rollout against the other rollouts of its question and modality.

    `A_i = r_i - mean(r over the same pair and modality)` (arXiv 2601.05543, section 4.3). With `scale` it is divided by
    `std + 1e-6`, the standard deviation with Bessel's correction, as in GRPO.

    This is the reference implementation of what a framework computes when every modality of a question is a prompt of
    its own. It follows verl's `compute_grpo_outcome_advantage` also for a group of one, which has no baseline: its mean
    counts as 0 and its deviation as 1, so that it keeps its reward.

    Args:
        totals: Finite rewards.
        pair_ids: Question of each rollout: a list of names, or a tensor or array of numbers, grouped by value.
        modalities: Modality of each rollout, likewise.
        scale: Divide by the group's standard deviation.

    Returns:
        In the dtype of `totals` if that is a floating-point tensor, else float32.

    Raises:
        RolloutError: The three arguments differ in length, or a reward is not finite.

    Example:
        >>> modalities = ["speech", "speech", "text", "text"]
        >>> modality_normalized_advantages([1.0, 0.0, 5.0, 3.0], ["q"] * 4, modalities).tolist()
        [0.5, -0.5, 1.0, -1.0]
    """
    dtype = torch.float32
    if isinstance(totals, torch.Tensor):
        dtype = totals.dtype if totals.is_floating_point() else dtype
        rewards = totals.detach().double().cpu()
    else:
        # Rounded to the result's precision first: the mean of equal rewards is then exactly each of them.
        rewards = torch.from_numpy(np.array(totals, np.float32)).double()
    if rewards.shape != (len(pair_ids),) or len(pair_ids) != len(modalities):
        raise RolloutError(
            f"expected one reward, pair_id and modality a rollout, got rewards of shape {tuple(rewards.shape)}, "
            f"{len(pair_ids)} pair_ids and {len(modalities)} modalities"
        )
    if not rewards.isfinite().all():
        raise RolloutError(
            "expected finite rewards, got NaN or inf; a term that does not apply must be left out, not NaN"
        )
    codes: dict[tuple[Hashable, Hashable], int] = {}
    keys = zip(_values(pair_ids), _values(modalities), strict=True)
    group = torch.from_numpy(np.array([codes.setdefault(key, len(codes)) for key in keys], np.int64))
    size = torch.bincount(group, minlength=len(codes)).double()
    alone = size == 1
    mean = torch.zeros_like(size).index_add_(0, group, rewards) / size
    mean[alone] = 0.0
    advantages = rewards - mean[group]
    if scale:
        squares = torch.zeros_like(size).index_add_(0, group, advantages**2)
        deviation = torch.where(alone, 1.0, (squares / (size - 1).clamp(min=1)).sqrt())
        advantages = advantages / (deviation[group] + _EPSILON)
    return advantages.to(dtype)


def _values(column: Any) -> list[Hashable]:
    """A column's plain values: the elements of a tensor are hashed by identity, not by value."""
    return list(column.tolist() if hasattr(column, "tolist") else column)
