"""The asymmetric combination of the terms.

Target: `R = R_base + alpha * R_rep + beta * R_beh`. Anchor: `R = R_base` (arXiv 2601.05543, section 4.2). The anchor is
the moving reference and is never rewarded for coming closer to the target, which would be cheapest by getting worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from tars_rewards.protocol import TermValue

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def combine(
    base: Float[Tensor, " rollouts"],
    terms: Mapping[str, TermValue],
    *,
    weights: Mapping[str, float],
    is_target: Bool[Tensor, " rollouts"],
) -> Float[Tensor, " rollouts"]:
    """Total reward: the base reward, and for target rollouts the weighted alignment terms that are valid.

    Args:
        base: Base reward of every rollout.
        terms: Alignment terms by name.
        weights: Weight of each term, by the same names.
        is_target: Rollouts of the target modality.

    Example:
        >>> term = TermValue(torch.tensor([0.5, 0.5]), torch.tensor([True, True]))
        >>> combine(torch.ones(2), {"t": term}, weights={"t": 2.0}, is_target=torch.tensor([True, False])).tolist()
        [2.0, 1.0]
    """
    total = base.clone()
    for name, term in terms.items():
        if weights[name]:
            total += torch.where(term.valid & is_target, weights[name] * term.values, 0.0)
    return total
