"""Rotary positions of "longrope" models (Phi-4), told for each row of a batch by its own length.

Such a model has one set of frequencies for texts of up to a certain length and another for longer ones. transformers
chooses by the longest row of a batch, so that a short row's scores would depend on what else is in the batch.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def choose_by_row(model: Any) -> None:
    """Let a model's "longrope" modules, if there are any, choose the frequencies for each row.

    Args:
        model: A model whose forward is given positions [rows, tokens].
    """
    for module in model.modules():
        if getattr(module, "rope_type", None) == "longrope":
            module.forward = _by_row(module.forward, module.config.rope_parameters["original_max_position_embeddings"])


def _by_row(stock: Any, limit: int) -> Any:
    @functools.wraps(stock)
    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, ...]:
        long = position_ids.amax(dim=1) >= limit
        if len(long) == 1 or long.all() or not long.any():
            result: tuple[Tensor, ...] = stock(x, position_ids=position_ids)
            return result
        rows = [stock(x[:1], position_ids=row[None]) for row in position_ids]
        return tuple(torch.cat(each) for each in zip(*rows, strict=True))

    return forward
