"""Pooled states on their way between processes: two bytes a value, and 72 a layer.

A layer's states travel as 16-bit integers on a scale of the layer's own, except for the 8 values that are largest: those go
beside them as they are. Every other value is then off by at most the 65,534th part of the ninth largest. A few dimensions of
a decoder's states are often thousands of times larger than the rest. In float16, which is as long, their rounding alone moves
cosines by up to 5e-4 (bfloat16: 4e-3), and everything where a mean state is subtracted (`center`) that holds them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Float, Float32, Int, Int16, Int64
    from torch import Tensor

LARGE = 8  #: values of a layer that are not rounded
_HEAD = 2  # numbers of a layer before those
_STEPS = 32767
# Scales are normal numbers of float32, and so is 32767 times each; of none is a layer's largest value more than 2**40 steps.
_SCALES = (torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max / _STEPS * (1 - 2**-23))
_RANGE = 2.0**-40


class Side(NamedTuple):
    """What goes beside one rollout's steps, as arrays."""

    scales: Float32[np.ndarray, " layers"]
    squares: Float32[np.ndarray, " layers"]
    large: Float32[np.ndarray, "layers large"]
    dimensions: Int[np.ndarray, "layers large"]


@dataclass(frozen=True, eq=False)
class PackedStates:
    """Pooled states as `pack_states` makes them.

    One rollout's can be a rollout's `hidden_states` as they are; `numpy.asarray` of them, like `unpack`, gives float32.
    """

    steps: Int16[Tensor, "*batch layers hidden"]  #: values as multiples of their layer's scale; 0 where a large one is
    side: Float32[Tensor, "*batch layers side"]
    """Of each layer: scale, squared norm in steps, the 8 large values in steps, and their dimensions."""

    @property
    def scales(self) -> Float32[Tensor, "*batch layers"]:
        """What one step is worth in each layer."""
        return self.side[..., 0]

    @property
    def large(self) -> Float32[Tensor, "*batch layers large"]:
        """Each layer's largest values, in steps."""
        return self.side[..., _HEAD : _HEAD + LARGE]

    @property
    def dimensions(self) -> Int64[Tensor, "*batch layers large"]:
        """Where they belong."""
        return self.side[..., _HEAD + LARGE :].long()

    def side_arrays(self) -> Side:
        """What goes beside one rollout's steps, on the CPU: for so few values tensors would take twice as long."""
        side = self.side.numpy()
        return Side(side[:, 0], side[:, 1], side[:, _HEAD : _HEAD + LARGE], side[:, _HEAD + LARGE :].astype(np.intp))

    def unpack(self) -> Float32[Tensor, "*batch layers hidden"]:
        """The states."""
        return self.steps.float().scatter_(-1, self.dimensions, self.large).mul_(self.scales[..., None])

    @classmethod
    def from_flat(cls, steps: Int16[Tensor, " layers*hidden"], side: Float32[Tensor, " layers*side"]) -> PackedStates:
        """One rollout's, from its two tensors without their dimensions."""
        side = side.reshape(-1, _HEAD + 2 * LARGE)
        return cls(steps.reshape(len(side), -1), side)

    def cpu(self) -> PackedStates:
        """The same on the CPU."""
        return PackedStates(self.steps.cpu(), self.side.cpu())

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, row: int) -> PackedStates:
        """One rollout's, of a batch."""
        return PackedStates(self.steps[row], self.side[row])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("packed states cannot be an array without a copy; use numpy.asarray(states)")
        array: npt.NDArray[Any] = self.unpack().cpu().numpy()
        return array if dtype is None else array.astype(dtype)


def pack_states(states: Float[Tensor, "*batch layers hidden"]) -> PackedStates:
    """Round pooled states to 16 bits but for each layer's largest values, on a scale for each layer of each rollout.

    What is zero stays zero, and of a layer with NaN or inf nothing stays finite, so that the reward refuses it as it would
    have before.

    Args:
        states: Any floating-point dtype, on any device, where the result is too; taken as float32.

    Example:
        >>> states = torch.arange(20.0)[None]
        >>> packed = pack_states(states)
        >>> packed.dimensions.tolist(), round(packed.scales.item() * 32767, 3)
        ([[19, 18, 17, 16, 15, 14, 13, 12]], 11.0)
        >>> (packed.unpack() - states).abs().max().item() <= 11 / 65534
        True
    """
    states = states.detach().float()
    hidden = states.shape[-1]
    largest = states.abs().topk(min(LARGE + 1, hidden), dim=-1)
    # A layer that is narrower than that names its last value more than once.
    which = torch.arange(LARGE, device=states.device).clamp(max=hidden - 1)
    dimensions = largest.indices[..., which]
    peak = largest.values[..., LARGE] if hidden > LARGE else torch.zeros_like(largest.values[..., 0])
    scales = torch.maximum(peak / _STEPS, largest.values[..., 0] * _RANGE).clamp(*_SCALES)
    # What is not finite makes its layer's scale so, and is no number of steps.
    scales = torch.where(largest.values[..., 0].isfinite(), scales, largest.values[..., 0])
    steps = states / scales[..., None]
    large = steps.gather(-1, dimensions)
    steps.round_().scatter_(-1, dimensions, large)
    squares = torch.linalg.vector_norm(steps, dim=-1).square()
    steps.scatter_(-1, dimensions, 0.0).nan_to_num_(0.0)
    side = [scales[..., None], squares[..., None], large, dimensions.float()]
    return PackedStates(steps.to(torch.int16), torch.cat(side, dim=-1))
