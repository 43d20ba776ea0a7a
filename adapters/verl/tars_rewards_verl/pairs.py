"""Pairs in the data: every question has one prompt of each modality, and the two stay in the same batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from torchdata.stateful_dataloader import Stateful


class PairSampler(Sampler[int]):
    """Row indices with the two rows of a pair adjacent, shuffled by pair.

    The order of epoch e is a function of (seed, e) alone, so that a run resumed from a checkpoint continues with the
    order it would have had.

    Args:
        pairs: (target row, anchor row) of each pair.
        shuffle: Shuffle the pairs in every epoch.
        seed: Seed of the order.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], *, shuffle: bool, seed: int) -> None:
        self.pairs = list(pairs)
        self.shuffle = shuffle
        self.seed = seed
        self.next_epoch = 0

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    def __iter__(self) -> Iterator[int]:
        return _PairIterator(self)

    def order(self, epoch: int) -> list[int]:
        """Row indices of one epoch."""
        picks = np.arange(len(self.pairs))
        if self.shuffle:
            picks = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs))
        return [row for pick in picks for row in self.pairs[pick]]


class _PairIterator(Iterator[int], Stateful):
    """Position in the sampler's order; torchdata saves and restores it with the data loader."""

    def __init__(self, sampler: PairSampler) -> None:
        self._sampler = sampler
        self._epoch: int | None = None
        self._yielded = 0
        self._order: list[int] = []

    def __next__(self) -> int:
        if self._epoch is None:
            # Taken at the first row, since a data loader may create iterators that it never uses.
            self._start(self._sampler.next_epoch)
        if self._yielded == len(self._order):
            raise StopIteration
        self._yielded += 1
        return self._order[self._yielded - 1]

    def _start(self, epoch: int) -> None:
        self._epoch = epoch
        self._sampler.next_epoch = epoch + 1
        self._order = self._sampler.order(epoch)

    def state_dict(self) -> dict[str, Any]:
        epoch = self._sampler.next_epoch if self._epoch is None else self._epoch
        return {"epoch": epoch, "yielded": self._yielded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start(state_dict["epoch"])
        self._yielded = state_dict["yielded"]
