"""Which anchor rollout a target rollout is compared with.

One correct anchor rollout of the same pair, drawn uniformly (arXiv 2601.05543, section 4.1), once, and used by every
term. The draw depends on the seed, the step and the identity of the target rollout, and the candidates are taken in the
order of their sample_id: the same rollouts give the same references in any order, split by pair over any number of
processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def choose_references(
    pair: Int[np.ndarray, " rollouts"],
    sample_id: Int[np.ndarray, " rollouts"],
    *,
    needs: Bool[np.ndarray, " rollouts"],
    candidate: Bool[np.ndarray, " rollouts"],
    draws: UInt64[np.ndarray, " rollouts"],
) -> Int[np.ndarray, " rollouts"]:
    """Pick one candidate of the same pair for every rollout that needs a reference.

    Args:
        pair: Pair of each rollout, numbered from 0.
        sample_id: Sample of each rollout; orders the candidates of a pair.
        needs: Rollouts that need a reference.
        candidate: Rollouts that may serve as one.
        draws: Uniform 64-bit numbers, see `reference_draws`.

    Returns:
        Index of the chosen rollout; -1 where none is needed or the pair has no candidate.

    Example:
        >>> pair, sample = np.zeros(4, int), np.array([0, 0, 1, 2])
        >>> needs, candidate = sample < 0, np.array([False, True, False, True])
        >>> needs[0] = True
        >>> draws = np.full(4, 2**63, np.uint64)
        >>> choose_references(pair, sample, needs=needs, candidate=candidate, draws=draws).tolist()
        [3, -1, -1, -1]
    """
    chosen = np.full(len(pair), -1, np.int64)
    pool = np.flatnonzero(candidate)
    if pool.size == 0:
        return chosen
    pool = _in_order(pool, pair[pool], sample_id[pool])
    counts = np.bincount(pair[pool], minlength=int(pair.max()) + 1)
    first = np.cumsum(counts) - counts
    asking = np.flatnonzero(needs & (counts[pair] > 0))
    size = counts[pair[asking]].astype(np.uint64)
    # The upper 32 bits scaled to [0, size): unlike a remainder, its bias is below size / 2**32 whatever the size.
    pick = ((draws[asking] >> np.uint64(32)) * size) >> np.uint64(32)
    chosen[asking] = pool[first[pair[asking]] + pick.astype(np.int64)]
    return chosen


def _in_order(
    rollouts: Int[np.ndarray, " candidates"],
    pair: Int[np.ndarray, " candidates"],
    sample_id: Int[np.ndarray, " candidates"],
) -> Int[np.ndarray, " candidates"]:
    """Rollouts by pair, then by sample."""
    lowest, highest = int(sample_id.min()), int(sample_id.max())
    span = highest - lowest + 1
    if (int(pair.max()) + 1) * span < 2**63:
        key = pair * span + (sample_id - lowest)  # one key instead of two to sort by: several times faster
        if (key[:-1] <= key[1:]).all():  # batches often come in order
            return rollouts
        order = np.argsort(key)
    else:
        order = np.lexsort((sample_id, pair))
    ordered: Int[np.ndarray, " candidates"] = rollouts[order]
    return ordered


def reference_draws(
    pair_ids: Sequence[str],
    pair: Int[np.ndarray, " rollouts"],
    sample_id: Int[np.ndarray, " rollouts"],
    *,
    seed: int,
    step: int,
    modality: str,
) -> UInt64[np.ndarray, " rollouts"]:
    """Uniform 64-bit numbers from (seed, step, pair_id, modality, sample_id), for rollouts of one modality.

    The pair is hashed with xxHash (XXH3, 64 bits) under a seed made of the rest; the samples of a pair are then told
    apart by SplitMix64, so that the work per rollout is a few array operations.

    Args:
        pair_ids: The distinct pairs.
        pair: Index into `pair_ids` of each rollout.
        sample_id: Sample of each rollout.
        seed: The run's seed.
        step: The training step.
        modality: Modality of the rollouts that draw.
    """
    stream = xxhash.xxh3_64_intdigest(f"{seed} {step} {modality}".encode())
    # "surrogatepass": a damaged pair_id is still an identity
    hashes = [xxhash.xxh3_64_intdigest(pair_id.encode("utf-8", "surrogatepass"), stream) for pair_id in pair_ids]
    state = np.array(hashes, np.uint64)[pair] + (sample_id.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, " rollouts"] = state ^ (state >> np.uint64(31))
    return mixed
