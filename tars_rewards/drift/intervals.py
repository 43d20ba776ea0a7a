"""Means over questions with their intervals. What does not exist is NaN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from tars_rewards.drift.measures import CKA

_FEW = 10  # questions; with fewer, a resample too often consists of one of them
Bounds = tuple[float, float]
_ANYWHERE: Bounds = (-math.inf, math.inf)


class Estimate(NamedTuple):
    """Estimates with intervals, all of one shape: a column each."""

    mean: Float[np.ndarray, " columns"]  #: NaN where no question has a value
    low: Float[np.ndarray, " columns"]  #: NaN where there is no interval
    high: Float[np.ndarray, " columns"]
    questions: Int[np.ndarray, " columns"]  #: with a value


def mean_estimate(
    values: Float[np.ndarray, "questions columns"],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: Bounds = _ANYWHERE,
) -> Estimate:
    """Mean over questions with its bootstrap-t interval, questions resampled as a whole.

    Of each resample the mean's distance from the sample's mean is taken in units of the resample's own standard error; the
    quantiles of these distances take the place of Student's. For similarities, which pile up below 1, such intervals of
    95 % cover the truth in 94 to 96 % of simulations from 20 questions on, where percentiles and BCa, which scipy has,
    cover it in 89 to 94 % below 100 questions. With less than 10 questions, and where a column has so few
    different values that many resamples have but one, Student's own quantiles are used.

    Columns in which the same questions have values share their resamples. Where all values of a column are the same, so
    are the bounds; with less than two questions there are none.

    Args:
        values: NaN: the question has no value in this column.
        resamples: Of the bootstrap.
        confidence: Such as 0.95.
        seed: Of the resamples.
        bounds: What the mean cannot leave.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.
    """
    present = ~np.isnan(values)
    mean, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    patterns, of_column = np.unique(present, axis=1, return_inverse=True)
    for index, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(of_column.reshape(-1) == index)
        chosen = values[pattern][:, columns]
        if len(chosen):
            mean[columns] = chosen.mean(axis=0)
        if len(chosen) > 1:
            least, most = _distances(chosen - mean[columns], resamples, confidence, seed)
            error = chosen.std(axis=0, ddof=1) / np.sqrt(len(chosen))
            error[(chosen == chosen[:1]).all(axis=0)] = 0.0
            low[columns], high[columns] = mean[columns] - most * error, mean[columns] - least * error
    return Estimate(mean, np.maximum(low, bounds[0]), np.minimum(high, bounds[1]), present.sum(axis=0))


def _distances(
    values: Float[np.ndarray, "questions columns"], resamples: int, confidence: float, seed: int
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Quantiles of (mean - true mean) / standard error, of values whose mean is 0."""
    from scipy.stats import t

    count, tail = len(values), (1 - confidence) / 2
    students = t.ppf(1 - tail, count - 1)
    if count < _FEW:
        return np.asarray(-students), np.asarray(students)
    # How often each question is in each resample; one matrix product gives the means of all columns.
    share = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples) / count
    mean = share @ values
    variance = (share @ np.square(values) - np.square(mean)) / (count - 1)
    # A resample of alike values has no distance. What rounding leaves of its variance must not pass for one.
    alike = variance <= 1e-12 * np.square(values).mean(axis=0)
    distance = np.where(alike, 0.0, mean / np.sqrt(np.where(alike, 1.0, variance)))
    least, most = np.quantile(distance, [tail, 1 - tail], axis=0)
    too_many = alike.mean(axis=0) > tail
    return np.where(too_many, -students, least), np.where(too_many, students, most)


def share_estimate(
    values: Float[np.ndarray, " questions"], *, resamples: int, confidence: float, seed: int
) -> Estimate:
    """A share (one column) with its interval: Wilson's where each question says yes or no, else the bootstrap's.

    The bootstrap cannot tell how sure an unanimous sample is; Wilson's interval can.
    """
    from scipy.stats import binomtest

    there = values[~np.isnan(values)]
    yes_or_no = np.isin(there, (0.0, 1.0)).all()
    if not there.size or not yes_or_no:
        how: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
        estimate = mean_estimate(values[:, None], **how, bounds=(0.0, 1.0))
        return without_certainty(estimate)
    found = binomtest(int(there.sum()), there.size).proportion_ci(confidence_level=confidence, method="wilson")
    share, low, high = (np.array([float(part)]) for part in (there.mean(), found.low, found.high))
    return Estimate(share, low, high, np.array([there.size]))


def without_certainty(estimate: Estimate) -> Estimate:
    """Drop an interval that consists of one point: that all questions of a sample agree does not prove that all do."""
    certain = estimate.low == estimate.high
    low, high = (np.where(certain, np.nan, bound) for bound in (estimate.low, estimate.high))
    return estimate._replace(low=low, high=high)


def cka_estimate(cka: CKA, *, confidence: float, average: bool = False, bounds: Bounds = (-1, 1)) -> Estimate:
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
