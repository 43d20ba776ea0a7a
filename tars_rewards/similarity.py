"""Cosine similarity that always says where it exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

# Outside this range the squares of a norm leave float32, and their sum no longer tells the norm.
_SAFE_NORM = (1e-15, 1e15)


def cosine(
    left: Float[Tensor, "*batch dim"], right: Float[Tensor, "*batch dim"]
) -> tuple[Float[Tensor, " *batch"], Bool[Tensor, " *batch"]]:
    """Cosine of two stacks of vectors, in float32 whatever their dtype.

    `cos(x, y) = x . y / (|x| |y|)`, in [-1, 1]. It does not exist where a vector is zero: the value is then 0 and the
    mask False. Vectors of any finite length are handled; those whose squares would leave float32 are scaled first.

    Args:
        left: Finite vectors in the last dimension.
        right: The same shape.

    Returns:
        The cosines, float32, and the mask of those that exist.

    Example:
        >>> values, valid = cosine(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 0.0]]))
        >>> [round(value, 6) for value in values.tolist()], valid.tolist()
        ([0.96, 0.0], [True, False])
    """
    left, right = left.float(), right.float()
    left_norm, right_norm = left.norm(dim=-1), right.norm(dim=-1)
    if not (_is_safe(left_norm) and _is_safe(right_norm)):
        left, right = _unit_peak(left), _unit_peak(right)
        left_norm, right_norm = left.norm(dim=-1), right.norm(dim=-1)
    valid = (left_norm > 0) & (right_norm > 0)
    scale = torch.where(valid, left_norm * right_norm, 1.0)
    values = torch.where(valid, (left * right).sum(dim=-1) / scale, 0.0)
    return values.clamp(-1.0, 1.0), valid


def _is_safe(norm: Tensor) -> bool:
    return bool(((norm > _SAFE_NORM[0]) & (norm < _SAFE_NORM[1])).all())


def _unit_peak(vectors: Tensor) -> Tensor:
    peak = vectors.abs().amax(dim=-1, keepdim=True)
    return vectors / torch.where(peak > 0, peak, 1.0)
