"""Intervals, by simulation where the truth is known, and against independent routes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tars_rewards.errors import ConfigError, InputError
from tars_rewards.evaluation.statistics import Estimate, QuestionBootstrap, Resampling, ratio

SIMULATIONS = 2000
QUICK, QUICKEST = Resampling(resamples=1000), Resampling(resamples=400)
CELLS = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], float)  # (speech, text) of a question


def gap(mean):
    return mean["text"] - mean["speech"]


def own_ratio(mean):
    return ratio(mean["speech"], mean["text"])


def holds(estimate, truth):
    low = -math.inf if estimate.low is None else estimate.low
    high = math.inf if estimate.high is None else estimate.high
    return low - 1e-9 <= truth <= high + 1e-9


def of_counts(cells, names, counts):
    values = np.repeat(cells, counts, axis=0)
    return {name: values[:, column] for column, name in enumerate(names)}


def coverage(cells, probabilities, n, statistics_and_truths, *, names=("speech", "text"), rng=0):
    """Share of simulations whose interval holds the truth; equal data are looked at once."""
    draws = np.random.default_rng(rng).multinomial(n, probabilities, size=SIMULATIONS)
    distinct, times = np.unique(draws, axis=0, return_counts=True)
    covered = np.zeros(len(statistics_and_truths))
    for counts, often in zip(distinct, times, strict=True):
        bootstrap = QuestionBootstrap(of_counts(cells, names, counts), resampling=QUICK)
        covered += [often * holds(bootstrap.estimate(each), truth) for each, truth in statistics_and_truths]
    return covered / SIMULATIONS


@pytest.mark.parametrize(
    ("n", "p"),
    [(50, 0.3), (50, 0.8), (100, 0.65), (100, 0.9), (200, 0.5), (200, 0.95), (455, 0.8), (1000, 0.97), (3074, 0.62)],
)
def test_accuracy_interval_covers(n, p):
    (covered,) = coverage(np.array([[1.0], [0.0]]), [p, 1 - p], n, [(lambda mean: mean["speech"], p)], names=["speech"])
    assert 0.93 <= covered <= 0.97


def exact_coverage(n, truths):
    """Coverage by enumeration: the interval of every number of right answers, weighed with its probability."""
    found = [QuestionBootstrap({"speech": np.repeat([1.0, 0.0], [right, n - right])}) for right in range(n + 1)]
    ends = np.array([(each.low, each.high) for each in (bootstrap.estimate(_speech) for bootstrap in found)])
    inside = (ends[:, :1] <= truths + 1e-9) & (truths - 1e-9 <= ends[:, 1:])
    return np.sum(stats.binom.pmf(np.arange(n + 1)[:, None], n, truths) * inside, axis=0)


def test_accuracy_interval_covers_at_every_accuracy():
    covered = exact_coverage(100, np.linspace(0.05, 0.95, 91))
    assert covered.min() >= 0.93
    assert covered.max() <= 0.97
    assert exact_coverage(100, np.linspace(0.95, 0.995, 46)).min() >= 0.93


def test_accuracy_interval_of_few_questions():
    """Outside of what is promised; as `statistics` says, the average holds, a single accuracy may not."""
    truths = np.linspace(0.05, 0.95, 91)
    assert exact_coverage(20, truths).min() >= 0.92
    five = exact_coverage(5, truths)
    assert five.mean() >= 0.94
    assert five.min() < 0.9


def test_accuracy_interval_covers_with_samples_of_one_question_together():
    rng, covered, row_wise = np.random.default_rng(1), 0, 0
    for _ in range(SIMULATIONS):
        right = rng.binomial(4, rng.beta(1.2, 0.8, size=200)) / 4  # truth 0.6; a question's samples resemble each other
        covered += holds(QuestionBootstrap({"speech": right}, samples=4, resampling=QUICKEST).estimate(_speech), 0.6)
        row_wise += abs(right.mean() - 0.6) <= 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 800)
    assert 0.93 <= covered / SIMULATIONS <= 0.97
    assert (
        row_wise / SIMULATIONS < 0.85
    )  # rows taken as independent, which they are not: the simulation tells them apart


@pytest.mark.parametrize(
    ("n", "probabilities"),
    [(100, [0.55, 0.05, 0.2, 0.2]), (200, [0.6, 0.02, 0.06, 0.32]), (455, [0.5, 0.1, 0.1, 0.3])],
    ids=["100 questions", "200, few discordant", "455, no gap"],
)
def test_gap_and_ratio_intervals_cover_with_correlated_modalities(n, probabilities):
    speech, text = np.asarray(probabilities) @ CELLS
    covered = coverage(CELLS, probabilities, n, [(gap, text - speech), (own_ratio, speech / text)])
    assert (covered >= 0.93).all()
    assert (covered <= 0.97).all()


@pytest.mark.parametrize(("n", "probabilities"), [(30, [0.6, 0.02, 0.05, 0.33]), (100, [0.96, 0.01, 0.01, 0.02])])
def test_intervals_err_on_the_wide_side_with_few_discordant_questions(n, probabilities):
    speech, text = np.asarray(probabilities) @ CELLS
    assert (coverage(CELLS, probabilities, n, [(gap, text - speech), (own_ratio, speech / text)]) >= 0.95).all()


def test_recovery_rate_covers_with_a_backbone_on_the_same_questions():
    cells = np.array(list(itertools.product((1.0, 0.0), repeat=2)))
    probabilities = [0.5, 0.05, 0.2, 0.25]  # (speech, backbone): 0.55 and 0.70
    rate = lambda mean: 100 * ratio(mean["speech"], mean["backbone"])  # noqa: E731
    (covered,) = coverage(cells, probabilities, 200, [(rate, 100 * 0.55 / 0.7)], names=("speech", "backbone"), rng=2)
    assert 0.93 <= covered <= 0.97


def test_interval_agrees_with_scipy():
    """An independent route: scipy draws question by question, given the two made-up questions."""
    values = np.repeat(CELLS, [110, 10, 40, 40], axis=0)
    ours = QuestionBootstrap(dict(zip(("speech", "text"), values.T, strict=True))).estimate(own_ratio)
    speech, text = np.concatenate([values, [[1, 0], [0, 1]]]).T
    scipy = stats.bootstrap(
        (speech, text),
        lambda speech, text, axis: speech.mean(axis=axis) / text.mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.value == pytest.approx(120 / 150)
    assert (ours.low, ours.high) == pytest.approx((scipy.low, scipy.high), abs=0.004)


@pytest.mark.parametrize(
    ("right", "n", "least_width", "exact"),
    [(30, 30, 0.05, 0.8843), (0, 30, 0.05, 0.1157), (455, 455, 0.004, 0.9919), (1, 1, 0.9, 0.025), (0, 1, 0.9, 0.975)],
)
def test_all_right_or_all_wrong_is_no_certainty(right, n, least_width, exact):
    """`exact`: the end of the Clopper-Pearson interval, 0.025 ** (1 / n) and its complement."""
    found = QuestionBootstrap({"speech": np.repeat([1.0, 0.0], [right, n - right])}).estimate(_speech)
    assert found.value == right / n
    assert found.high - found.low >= least_width
    open_end = found.low if right else found.high
    assert open_end == pytest.approx(exact, abs=0.04)


def test_identical_modalities_are_no_certainty_either():
    both = np.ones(50)
    found = QuestionBootstrap({"speech": both, "text": both}).estimate(gap)
    assert found.value == 0.0
    assert found.low < -0.02
    assert found.high > 0.02


def test_ratio_to_zero_does_not_exist():
    wrong = np.zeros(20)
    bootstrap = QuestionBootstrap({"speech": np.ones(20), "text": wrong})
    assert bootstrap.estimate(own_ratio) == Estimate(None, None, None)


def test_ratio_to_almost_zero_is_open_above():
    text = np.zeros(20)
    text[0] = 1.0
    found = QuestionBootstrap({"speech": np.ones(20), "text": text}).estimate(own_ratio)
    assert found.value == 20.0
    assert found.low > 1.0
    assert found.high is None


@given(st.lists(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.25)]), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_interval_holds_its_estimate_and_stays_in_range(questions):
    speech, text = np.array(questions, float).T
    bootstrap = QuestionBootstrap({"speech": speech, "text": text}, resampling=Resampling(resamples=500))
    accuracy, between = bootstrap.estimate(_speech), bootstrap.estimate(gap)
    assert 0.0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1.0
    assert -1.0 <= between.low <= between.value <= between.high <= 1.0


def test_seed_and_order_of_questions():
    values = np.random.default_rng(0).random(500)
    first = QuestionBootstrap({"speech": values}, resampling=QUICK).estimate(_speech)
    backwards = QuestionBootstrap({"speech": values[::-1]}, resampling=QUICK).estimate(_speech)
    assert backwards.low == pytest.approx(first.low)  # to rounding: the order of questions does not matter
    assert QuestionBootstrap({"speech": values}, resampling=QUICK).estimate(_speech) == first
    other = QuestionBootstrap({"speech": values}, resampling=Resampling(resamples=1000, seed=1)).estimate(_speech)
    assert other != first
    assert other.low == pytest.approx(first.low, abs=0.005)


def test_resamples_in_chunks_are_of_one_distribution(monkeypatch):
    values = np.random.default_rng(0).random(300)
    whole = QuestionBootstrap({"speech": values}).estimate(_speech)
    monkeypatch.setattr("tars_rewards.evaluation.statistics._CELLS", 1000 * 302)
    parts = QuestionBootstrap({"speech": values}).draws(_speech)
    assert parts.shape == (10_000,)
    assert np.quantile(parts, 0.025) == pytest.approx(whole.low, abs=0.002)


@pytest.mark.parametrize("changed", [{"level": 0.0}, {"level": 95.0}, {"resamples": 10}])
def test_resampling_is_checked(changed):
    with pytest.raises(ConfigError, match=f"expected {next(iter(changed))}"):
        Resampling(**changed)


def test_no_question():
    with pytest.raises(InputError, match="at least one question"):
        QuestionBootstrap({"speech": np.zeros(0)})


def _speech(mean):
    return mean["speech"]
