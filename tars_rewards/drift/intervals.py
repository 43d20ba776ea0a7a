"""Means over questions with their intervals. What does not exist is NaN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from tars_rewards.drift.measures import CKA

_AT_ONCE = 2**24  # values of resamples in memory


class Estimate(NamedTuple):
    """Estimates with intervals, all of one shape: a column each."""

    mean: Float[np.ndarray, " columns"]  #: NaN where no question has a value
    low: Float[np.ndarray, " columns"]  #: NaN where there is no interval
    high: Float[np.ndarray, " columns"]
    questions: Int[np.ndarray, " columns"]  #: with a value


def mean_estimate(
    values: Float[np.ndarray, "questions columns"], *, resamples: int, confidence: float, seed: int
) -> Estimate:
    """Mean over questions with its BCa bootstrap interval, questions resampled as a whole.

    Columns in which the same questions have values share their resamples. Where all values of a column are the same, so
    are the bounds; with less than two questions there are none.

    Args:
        values: NaN: the question has no value in this column.
        resamples: Of the bootstrap.
        confidence: Such as 0.95.
        seed: Of the resamples.
    """
    from scipy.stats import bootstrap

    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    mean, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    patterns, of_column = np.unique(present, axis=1, return_inverse=True)
    for index, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(of_column.reshape(-1) == index)
        count = int(pattern.sum())
        if count == 0:
            continue
        chosen = values[pattern][:, columns].T
        mean[columns] = chosen.mean(axis=1)
        constant = (chosen == chosen[:, :1]).all(axis=1)
        if count < 2:
            continue
        low[columns[constant]] = high[columns[constant]] = mean[columns[constant]] = chosen[constant, 0]
        varied = columns[~constant]
        if varied.size:
            found = bootstrap(
                (chosen[~constant],),
                np.mean,
                axis=-1,
                vectorized=True,
                n_resamples=resamples,
                batch=max(1, _AT_ONCE // (count * varied.size)),
                confidence_level=confidence,
                method="BCa",
                rng=np.random.default_rng(seed),
            ).confidence_interval
            low[varied], high[varied] = found.low, found.high
    return Estimate(mean, low, high, counts)


def share_estimate(
    values: Float[np.ndarray, " questions"], *, resamples: int, confidence: float, seed: int
) -> Estimate:
    """A share (one column) with its interval: Wilson's where each question says yes or no, else the bootstrap's.

    The bootstrap cannot tell how sure an unanimous sample is; Wilson's interval can.
    """
    from scipy.stats import binomtest

    there = values[~np.isnan(values)]
    if there.size == 0 or not (np.isin(there, (0.0, 1.0)).all() or (there == there[0]).all()):
        return mean_estimate(values[:, None], resamples=resamples, confidence=confidence, seed=seed)
    share = float(there.mean())
    if share not in (0.0, 1.0) and not np.isin(there, (0.0, 1.0)).all():  # several samples, the same share everywhere
        nothing = np.array([math.nan])
        return Estimate(np.array([share]), nothing, nothing, np.array([there.size]))
    found = binomtest(int(there.sum()), there.size).proportion_ci(confidence_level=confidence, method="wilson")
    return Estimate(np.array([share]), np.array([found.low]), np.array([found.high]), np.array([there.size]))


def cka_estimate(
    cka: CKA, *, confidence: float, average: bool = False, bounds: tuple[float, float] = (-1, 1)
) -> Estimate:
    """CKA by layer with its jackknife interval: Student's t over the questions.

    Resampling questions with replacement would put doubles into the kernel matrices, which a debiased estimator takes for
    two alike questions; leaving questions out makes no doubles. Coverage on simulated Gaussian states with known CKA is
    93 to 98 %.

    Args:
        cka: The estimates; also the difference of two over the same questions, which is then a paired one.
        confidence: Such as 0.95.
        average: Over the layers: one column.
        bounds: What the estimate cannot leave.
    """
    from scipy.stats import t

    value, without = cka.value, cka.without
    if average:
        value, without = value.mean(keepdims=True), without.mean(axis=1, keepdims=True)
    count = len(without)
    spread = np.square(without - without.mean(axis=0)).sum(axis=0) if count else np.full(value.shape, np.nan)
    reach = t.ppf((1 + confidence) / 2, max(1, count - 1)) * np.sqrt((count - 1) / max(1, count) * spread)
    counts = np.where(np.isnan(value), 0, count)
    return Estimate(value, np.maximum(value - reach, bounds[0]), np.minimum(value + reach, bounds[1]), counts)
