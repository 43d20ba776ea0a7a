"""Pooled states on their way between processes: two bytes a value, and four a layer.

A layer's states `h` travel as 16-bit integers `v` and the layer's scale `s`: `h = s * v`, `s = max |h| / 32767`. Every value
is then off by at most half a scale. That is more than float16's error for small values and far less for large ones, and a
cosine is made by large ones: where a few very large dimensions dominate and differ between rollouts, its error was at most
3e-5, with float16 5e-4 and with bfloat16, as long, 4e-3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Float, Float32, Int16
    from torch import Tensor

_LARGEST = 32767
# Scales are normal numbers of float32, and so is 32767 times each.
_SCALES = (torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max / _LARGEST * (1 - 2**-23))


@dataclass(frozen=True, eq=False)
class PackedStates:
    """Pooled states as `pack_states` makes them.

    One rollout's can be a rollout's `hidden_states` as they are; `numpy.asarray` of them, like `unpack`, gives float32.
    """

    values: Int16[Tensor, "*batch layers hidden"]
    scales: Float32[Tensor, "*batch layers"]  #: what 1 is worth in a layer; 0: all is 0; NaN or inf: not finite

    def unpack(self) -> Float32[Tensor, "*batch layers hidden"]:
        """The states, each off by at most half its layer's scale."""
        return self.values.float() * self.scales[..., None]

    def cpu(self) -> PackedStates:
        """The same on the CPU."""
        return PackedStates(self.values.cpu(), self.scales.cpu())

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> PackedStates:
        """One rollout's, of a batch."""
        return PackedStates(self.values[row], self.scales[row])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("packed states cannot be an array without a copy; use numpy.asarray(states)")
        array: npt.NDArray[Any] = self.unpack().cpu().numpy()
        return array if dtype is None else array.astype(dtype)


def pack_states(states: Float[Tensor, "*batch layers hidden"]) -> PackedStates:
    """Round pooled states to 16-bit integers, every layer of every rollout on a scale of its own.

    What is zero stays zero, and a layer with NaN or inf comes out as NaN, so that the reward refuses it as it would have
    before. A layer without a value beyond 1e-38 counts as zero.

    Args:
        states: Any floating-point dtype, on any device, where the result is too.

    Example:
        >>> packed = pack_states(torch.tensor([[0.5, -32767.0], [0.0, 0.0]]))
        >>> packed.values.tolist(), packed.scales.tolist()
        ([[0, -32767], [0, 0]], [1.0, 0.0])
    """
    states = states.detach().float()
    peak = torch.maximum(states.amax(dim=-1), -states.amin(dim=-1))
    usable = (peak > 0) & peak.isfinite()
    scales = torch.where(usable, (peak / _LARGEST).clamp(*_SCALES), peak)
    steps = states / torch.where(usable, scales, 1.0)[..., None]
    values = torch.where(usable[..., None], steps.round(), 0.0).to(torch.int16)
    return PackedStates(values, scales)
