"""Intervals: their coverage on data with known truth, and what becomes of gaps."""

import numpy as np
import pytest
import scipy.stats
import torch

from tars_rewards.drift.intervals import cka_estimate, mean_estimate, share_estimate
from tars_rewards.drift.measures import CKA, debiased_cka

HOW = {"resamples": 1000, "confidence": 0.95, "seed": 0}


@pytest.fixture
def generator():
    return np.random.default_rng(1)


SIMILARITIES = {  # means of 0.9, with a long tail and with a short one; and of no shape in particular
    "skewed": (lambda generator, size: generator.beta(4.5, 0.5, size), 0.9),
    "narrow": (lambda generator, size: generator.beta(45, 5, size), 0.9),
    "normal": (lambda generator, size: generator.normal(size=size), 0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("questions", [20, 40, 150])
def test_means_are_covered(generator, questions, name):
    """Two thousand simulations, a column each."""
    draw, truth = SIMILARITIES[name]
    estimate = mean_estimate(draw(generator, (questions, 2000)), **HOW)
    coverage = np.mean((estimate.low <= truth) & (estimate.high >= truth))
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize("questions", [2, 5, 9])
def test_few_questions_have_students_interval(generator, questions):
    values = generator.normal(size=questions)
    estimate = mean_estimate(values[:, None], **HOW)
    expected = scipy.stats.t.interval(0.95, questions - 1, values.mean(), scipy.stats.sem(values))
    assert (estimate.low[0], estimate.high[0]) == pytest.approx(expected)


def test_means_have_the_interval_of_resampling_one_by_one(generator):
    """The same interval by a loop over resamples, with other random numbers."""
    values = generator.beta(4.5, 0.5, size=30)
    distances = []
    for resample in generator.choice(values, (20_000, 30)):
        distances.append((resample.mean() - values.mean()) / (resample.std(ddof=1) / np.sqrt(30)))
    least, most = np.quantile(distances, [0.025, 0.975])
    expected = values.mean() - most * scipy.stats.sem(values), values.mean() - least * scipy.stats.sem(values)
    estimate = mean_estimate(values[:, None], **{**HOW, "resamples": 20_000})
    width = expected[1] - expected[0]
    assert (estimate.low[0], estimate.high[0]) == pytest.approx(expected, abs=0.05 * width)


def test_an_offset_does_not_drown_the_spread(generator):
    """Cosines near 1 that differ in the seventh place."""
    values = generator.normal(size=(40, 1))
    estimate, near_one = mean_estimate(values, **HOW), mean_estimate(1 + 1e-7 * values, **HOW)
    assert ((near_one.high - near_one.mean) / 1e-7)[0] == pytest.approx((estimate.high - estimate.mean)[0], rel=1e-4)


def test_one_question_that_differs_leaves_a_finite_interval():
    values = np.ones((40, 1))
    values[7] = 0.5
    estimate = mean_estimate(values, **HOW, bounds=(-1, 1))
    assert -1 <= estimate.low[0] < values.mean() < estimate.high[0] <= 1


def simulated_cka(generator, questions, noise, simulations):
    """Two views of Gaussian states; returns the states and the CKA of their population."""
    scale = np.array([4, 2, *np.ones(10)])
    mixing = generator.normal(size=(12, 12)) / np.sqrt(12)
    left = generator.normal(size=(questions, simulations, 12)) * scale
    right = left @ mixing + noise * generator.normal(size=left.shape)
    covariance = np.diag(scale**2)
    across = np.linalg.norm(covariance @ mixing) ** 2
    own = np.linalg.norm(covariance), np.linalg.norm(mixing.T @ covariance @ mixing + noise**2 * np.eye(12))
    return left, right, across / (own[0] * own[1])


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_cka_is_covered_and_unbiased(generator, noise):
    left, right, truth = simulated_cka(generator, 40, noise, 2000)
    estimate = cka_estimate(debiased_cka(torch.from_numpy(left), torch.from_numpy(right)), confidence=0.95)
    coverage = np.mean((estimate.low <= truth) & (estimate.high >= truth))
    assert 0.93 <= coverage <= 0.98
    assert abs(estimate.mean.mean() - truth) < 0.02


@pytest.mark.slow
def test_differences_of_cka_are_covered_and_paired(generator):
    """Two models that see the same questions: the paired interval covers no difference, and is the narrower one."""
    left, right, _ = simulated_cka(generator, 60, 1.0, 500)
    again = right + 0.3 * generator.normal(size=right.shape)
    also = right + 0.3 * generator.normal(size=right.shape)
    one, other = (debiased_cka(torch.from_numpy(left), torch.from_numpy(states)) for states in (again, also))
    difference = CKA(one.value - other.value, one.without - other.without)
    paired = cka_estimate(difference, confidence=0.95, bounds=(-2, 2))
    coverage = np.mean((paired.low <= 0) & (paired.high >= 0))
    assert 0.92 <= coverage <= 0.985
    alone = cka_estimate(one, confidence=0.95)
    assert np.mean(paired.high - paired.low) < 0.5 * np.mean(alone.high - alone.low)


def test_a_mean_is_bracketed_and_repeatable(generator):
    values = generator.beta(4.5, 0.5, size=(30, 3))
    estimate = mean_estimate(values, **HOW)
    np.testing.assert_allclose(estimate.mean, values.mean(0))
    assert ((estimate.low < estimate.mean) & (estimate.mean < estimate.high)).all()
    assert estimate.questions.tolist() == [30] * 3
    again = mean_estimate(values, **HOW)
    assert again.low.tolist() == estimate.low.tolist()
    assert mean_estimate(values, **{**HOW, "confidence": 0.5}).low[0] > estimate.low[0]


def test_gaps_are_left_out_of_their_column_alone(generator):
    values = generator.normal(size=(20, 4))
    values[:5, 1] = np.nan
    values[1:, 2] = np.nan
    values[:, 3] = np.nan
    estimate = mean_estimate(values, **HOW)
    expected = mean_estimate(values[5:, 1:2], **HOW)
    assert [part[1] for part in estimate] == pytest.approx([part[0] for part in expected])
    assert estimate.questions.tolist() == [20, 15, 1, 0]
    assert estimate.mean[2] == values[0, 2]
    assert np.isnan([estimate.low[2], estimate.high[2], estimate.mean[3], estimate.low[3]]).all()


def test_values_that_are_all_the_same_have_bounds():
    estimate = mean_estimate(np.ones((8, 1)), **HOW)
    assert [part[0] for part in estimate] == [1.0, 1.0, 1.0, 8]


def wilson(yes, count):
    z = 1.959963984540054
    share = yes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - reach, middle + reach


@pytest.mark.parametrize(("yes", "count"), [(20, 20), (0, 9), (7, 10)])
def test_shares_have_wilsons_interval(yes, count):
    values = np.array([1.0] * yes + [0.0] * (count - yes) + [np.nan])
    estimate = share_estimate(values, **HOW)
    assert (estimate.low[0], estimate.high[0]) == pytest.approx(wilson(yes, count))
    assert estimate.mean[0] == yes / count
    assert estimate.questions[0] == count


def test_shares_over_several_samples_are_means(generator):
    values = generator.integers(0, 5, size=30) / 4
    for share, mean in zip(share_estimate(values, **HOW), mean_estimate(values[:, None], **HOW), strict=True):
        assert share.tolist() == mean.tolist()
    flat = share_estimate(np.full(12, 0.25), **HOW)
    assert flat.mean[0] == 0.25
    assert np.isnan([flat.low[0], flat.high[0]]).all()  # twelve alike do not prove that all are
    nothing = share_estimate(np.full(3, np.nan), **HOW)
    assert np.isnan(nothing.mean[0])


def test_cka_without_enough_questions_has_no_interval(generator):
    left, right = (torch.from_numpy(each) for each in generator.normal(size=(2, 4, 2, 6)))
    estimate = cka_estimate(debiased_cka(left, right), confidence=0.95)
    assert np.isfinite(estimate.mean).all()
    assert np.isnan([*estimate.low, *estimate.high]).all()


def test_cka_over_layers_is_the_mean_of_the_layers(generator):
    left, right = (torch.from_numpy(each) for each in generator.normal(size=(2, 30, 3, 6)))
    found = debiased_cka(left, left + right)
    layers, overall = (cka_estimate(found, confidence=0.95, average=average) for average in (False, True))
    assert overall.mean[0] == pytest.approx(layers.mean.mean())
    assert overall.high[0] - overall.low[0] < (layers.high - layers.low).mean()  # independent layers average out


@pytest.mark.parametrize("questions", [5, 30])
def test_the_jackknife_of_a_mean_is_students_interval(generator, questions):
    """A mean in the place of CKA: leaving out one at a time gives exactly its standard error."""
    values = generator.normal(scale=0.1, size=(questions, 2))
    without = (values.sum(0) - values) / (questions - 1)
    estimate = cka_estimate(CKA(values.mean(0), without), confidence=0.95)
    expected = scipy.stats.t.interval(0.95, questions - 1, values.mean(0), scipy.stats.sem(values))
    np.testing.assert_allclose((estimate.low, estimate.high), expected)


def test_bounds_cut_an_interval_off():
    estimate = cka_estimate(CKA(np.array([0.9]), np.array([[0.2], [1.0], [0.9], [0.8], [0.9]])), confidence=0.95)
    assert estimate.high[0] == 1
    assert estimate.low[0] < 0.5
    wide = mean_estimate(np.array([[0.5], [1.0], [1.0]]), **HOW, bounds=(-1, 1))
    assert wide.high[0] == 1
