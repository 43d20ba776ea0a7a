"""Pooled states where each rank has a part of the packed tokens: verl's Ulysses sequence parallelism.

verl pads the packed tokens of a micro batch to a multiple of the group's size and gives each rank one stretch of equal
length, whatever rows it cuts. The hooks see that stretch, so a rank has means over its part of each completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stretch:
    """One rank's tokens.

    Attributes:
        mask: Which of them are completion tokens.
        offsets: Where the rows start in them, and where the last one ends; a row without tokens here has length 0.
        share: Which part of each row's completion tokens is here, in [0, 1]; the shares of all ranks add up to 1, or to 0
            for a row without a completion token.
    """

    mask: Bool[Tensor, " tokens"]
    offsets: Int[Tensor, " rows+1"]
    share: Float[Tensor, " rows"]

    @classmethod
    def cut(cls, mask: Bool[Tensor, " total"], offsets: Int[Tensor, " rows+1"], *, rank: int, size: int) -> Stretch:
        """The stretch that verl gives to a rank.

        Args:
            mask: Completion tokens of all rows, packed.
            offsets: Where the rows start, and where the last one ends.
            rank: Position in the sequence parallel group.
            size: Ranks in it.
        """
        length = -(-mask.numel() // size)
        padded = torch.nn.functional.pad(mask, (0, length * size - mask.numel()))
        start = rank * length
        here, there = padded[start : start + length], (offsets - start).clamp(0, length)
        counts, all_counts = _counts(here, there), _counts(mask, offsets)
        return cls(here, there, counts / all_counts.clamp(min=1))

    def pooled_over(
        self, group: Any, pooled: Float[Tensor, "rows layers hidden"]
    ) -> Float[Tensor, "rows layers hidden"]:
        """Means over whole completions, the same on every rank, from this rank's means over its part of them.

        Args:
            group: The sequence parallel process group; all its ranks must call this.
            pooled: float32; overwritten.
        """
        pooled *= self.share.to(pooled)[:, None, None]
        torch.distributed.all_reduce(pooled, group=group)
        return pooled


def _counts(mask: Tensor, offsets: Tensor) -> Tensor:
    """Number of completion tokens of each row."""
    before = torch.nn.functional.pad(mask.cumsum(0), (1, 0))
    return before[offsets].diff()
