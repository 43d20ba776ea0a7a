"""Cosines of pooled states, layer by layer, for many rollouts: each state is read once and never copied as a whole batch.

A rollout's states are widened into memory that is used over again and so stays in a processor's cache, and compared there.
Every number depends on the two rollouts it belongs to (with centring, on their pair) and not on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from tars_rewards.pooled import PooledStates, check_finite

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch

    States = Mapping[int, PooledStates]
    Rows = Int[np.ndarray, " compared"]

# Outside this range a squared norm may have lost what float32 does not hold: it is then taken in float64.
_SAFE_SQUARE = (1e-30, 1e30)
_ROUNDING = 1e-6  # a centred vector shorter than this share of the original is rounding noise, that is, zero


class LayerCosines(NamedTuple):
    """Cosines, in [-1, 1], and where they exist: not where one of the two states is zero. Elsewhere they are 0."""

    values: Float[np.ndarray, "compared layers"]
    exists: Bool[np.ndarray, "compared layers"]


def layer_cosines(batch: RolloutBatch, states: States, targets: Rows, anchors: Rows) -> LayerCosines:
    """Cosine of each target with its anchor in every layer, in float32, or in float64 where that is not enough.

    Args:
        batch: For messages.
        states: By index; those that are not compared are only checked.
        targets: Indices; fastest where those of one anchor follow each other.
        anchors: Index of each target's anchor.

    Raises:
        HiddenStatesError: A value of a state is NaN or inf.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not usual is seen to afterwards
        compared = _compare(states, targets, anchors, torch.float32)
        found = compared.cosines()
    usual = _is_usual(compared.targets) & _is_usual(compared.anchors)
    others = np.zeros(len(batch), bool)
    others[list(states)] = True
    others[targets] = others[anchors] = False
    suspects = np.concatenate([targets[~usual], anchors[~usual], _unusual(states, np.flatnonzero(others))])
    for index in sorted(set(suspects.tolist())):
        check_finite(batch, index, states[index])
    if not usual.all():
        again = _compare(states, targets[~usual], anchors[~usual], torch.float64).cosines()
        found.values[~usual], found.exists[~usual] = again
    return found


def centered_cosines(batch: RolloutBatch, states: States, targets: Rows, anchors: Rows) -> LayerCosines:
    """`layer_cosines` of what is left of each state without the mean of its pair's, in float64.

    Args:
        batch: Says which rollouts make up a pair.
        states: By index; the mean is that of all of a pair's, where they are not zero.
        targets: Indices; those of a pair follow each other.
        anchors: Index of each target's anchor.

    Raises:
        HiddenStatesError: A value of a state is NaN or inf.
    """
    rows = np.fromiter(states, np.int64)
    for index in _unusual(states, rows).tolist():
        check_finite(batch, index, states[index])
    # In an order that is the rollouts' own, since sums depend on it in their last bits.
    rows = rows[np.lexsort((batch.sample_id[rows], batch.is_target[rows], batch.pair[rows]))]
    cuts = np.flatnonzero(np.diff(batch.pair[targets], prepend=-1, append=-1))
    parts = []
    for start, stop in pairwise(cuts.tolist()):
        pair = batch.pair[targets[start]]
        first, last = np.searchsorted(batch.pair[rows], [pair, pair + 1])
        mean = _mean(states, rows[first:last])
        parts.append(_compare(states, targets[start:stop], anchors[start:stop], torch.float64, mean).cosines())
    layers = len(next(iter(states.values())).values)
    empty = LayerCosines(np.empty((0, layers)), np.empty((0, layers), bool))
    return LayerCosines(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))


class _Scratch:
    """Room for the states of one rollout, with their squared norms. Memory that is not written to costs nothing."""

    def __init__(self, states: States, dtype: torch.dtype) -> None:
        like = next(iter(states.values())).values
        self.values = torch.empty(like.shape, dtype=dtype, device="cpu")
        array = self.values.numpy()
        self.squares = np.empty(len(array), array.dtype)
        self._layers = np.arange(len(array))[:, None]
        self._array, self._as_row, self._as_column = array, array[:, None, :], array[:, :, None]

    def read(self, states: PooledStates, minus: Tensor | None = None) -> None:
        """Take a rollout's states, less a mean state; a state that is zero, or is that mean, has a square of 0."""
        self.values.copy_(states.values)
        side = None if states.packed is None else states.packed.side_arrays()
        if side is not None:
            self._array[self._layers, side.dimensions] = side.large
        if side is not None and self.values.dtype != torch.float64:
            # A layer's scale is a factor that no cosine minds; it counts where a mean is or will be taken, in float64.
            self.squares[:] = side.squares
        else:
            if side is not None:
                self._array *= side.scales[:, None]
            self.dots(self, self.squares)
        if minus is not None:
            whole = self.squares.copy()
            self.values -= minus
            self.dots(self, self.squares)
            self.squares[(self.squares <= _ROUNDING**2 * whole) | (whole == 0)] = 0.0

    def measure(self, states: PooledStates) -> None:
        """Take the squared norms alone, for which packed states need not be read."""
        if states.packed is None:
            self.read(states)
        else:
            self.squares[:] = states.packed.side_arrays().squares

    def dots(self, other: _Scratch, out: npt.NDArray[Any]) -> None:
        """Inner products with another's, layer by layer, into `out` [layers]."""
        np.matmul(self._as_row, other._as_column, out=out[:, None, None])


class _Compared(NamedTuple):
    """Inner products of targets with themselves, of anchors with themselves, and of the two with each other."""

    targets: Float[np.ndarray, "compared layers"]
    anchors: Float[np.ndarray, "compared layers"]
    dots: Float[np.ndarray, "compared layers"]

    def cosines(self) -> LayerCosines:
        exists = np.asarray((self.targets > 0) & (self.anchors > 0))
        lengths = np.sqrt(self.targets) * np.sqrt(self.anchors)
        return LayerCosines(np.where(exists, np.clip(self.dots / np.where(exists, lengths, 1), -1, 1), 0), exists)


@torch.no_grad()
def _compare(
    states: States, targets: Rows, anchors: Rows, dtype: torch.dtype, minus: Tensor | None = None
) -> _Compared:
    target, anchor = _Scratch(states, dtype), _Scratch(states, dtype)
    shape = (len(targets), len(target.squares))
    compared = _Compared(*(np.empty(shape, target.squares.dtype) for _ in range(3)))
    held = -1
    for position, (row, other) in enumerate(zip(targets.tolist(), anchors.tolist(), strict=True)):
        if other != held:
            anchor.read(states[other], minus)
            held = other
        target.read(states[row], minus)
        target.dots(anchor, compared.dots[position])
        compared.targets[position], compared.anchors[position] = target.squares, anchor.squares
    return compared


@torch.no_grad()
def _unusual(states: States, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " unusual"]:
    """Those of the rows whose states may not be finite in float32, or whose squared norms may not."""
    scratch = _Scratch(states, torch.float32)
    squares = np.empty((len(rows), len(scratch.squares)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for position, row in enumerate(rows.tolist()):
            scratch.measure(states[row])
            squares[position] = scratch.squares
    unusual: Int[np.ndarray, " unusual"] = rows[~_is_usual(squares)]
    return unusual


@torch.no_grad()
def _mean(states: States, rows: Int[np.ndarray, " rows"]) -> Float[Tensor, "layers hidden"]:
    """Mean in every layer over the rollouts whose state there is not zero; zero where there is none."""
    scratch = _Scratch(states, torch.float64)
    total, present = torch.zeros_like(scratch.values), np.zeros_like(scratch.squares)
    for row in rows.tolist():
        scratch.read(states[row])
        total += scratch.values
        present += scratch.squares > 0
    return total / torch.from_numpy(present).clamp(min=1)[:, None]


def _is_usual(squares: Float[np.ndarray, "*rows layers"]) -> Bool[np.ndarray, "*rows"]:
    low, high = _SAFE_SQUARE
    return np.asarray(((squares > low) & (squares < high)).all(axis=-1))
