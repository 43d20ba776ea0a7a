"""Intervals and tests, by simulation where the truth is known, and against independent routes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tars_rewards.errors import ConfigError, InputError
from tars_rewards.evaluation.statistics import (
    Estimate,
    QuestionBootstrap,
    Resampling,
    difference,
    holm,
    mcnemar,
    ratio,
)

SIMULATIONS = 2000
QUICK = Resampling(resamples=1000)
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


# --- intervals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "p"),
    [(50, 0.3), (50, 0.8), (100, 0.65), (100, 0.9), (200, 0.5), (200, 0.95), (455, 0.8), (1000, 0.97), (3074, 0.62)],
)
def test_accuracy_interval_covers(n, p):
    (covered,) = coverage(np.array([[1.0], [0.0]]), [p, 1 - p], n, [(lambda mean: mean["speech"], p)], names=["speech"])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("n", "p"), [(5, 0.5), (10, 0.8), (20, 0.95), (30, 0.97), (50, 0.98)])
def test_accuracy_interval_errs_on_the_wide_side_with_few_questions(n, p):
    (covered,) = coverage(np.array([[1.0], [0.0]]), [p, 1 - p], n, [(lambda mean: mean["speech"], p)], names=["speech"])
    assert covered >= 0.93


def test_accuracy_interval_covers_with_samples_of_one_question_together():
    rng, covered, row_wise = np.random.default_rng(1), 0, 0
    for _ in range(SIMULATIONS):
        right = rng.binomial(4, rng.beta(1.2, 0.8, size=200)) / 4  # truth 0.6; a question's samples resemble each other
        covered += holds(QuestionBootstrap({"speech": right}, samples=4, resampling=QUICK).estimate(_speech), 0.6)
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


# --- tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (5, 1), (3, 9), (7, 7), (0, 12)])
def test_mcnemar_against_enumeration(counts):
    """p by hand: of all ways in which the discordant questions could have fallen, those at least as uneven."""
    first_only, second_only = counts
    discordant = sum(counts)
    uneven = abs(first_only - second_only)
    extreme = sum(abs(2 * sum(way) - discordant) >= uneven for way in itertools.product((0, 1), repeat=discordant))
    first = np.repeat([True, False, True, False], [first_only, second_only, 4, 3])
    second = np.repeat([False, True, True, False], [first_only, second_only, 4, 3])
    assert mcnemar(first, second) == (first_only, second_only, pytest.approx(extreme / 2**discordant))


def rejections(p_value, n, probabilities, simulations=SIMULATIONS, rng=4):
    """Share of simulations with p <= 0.05, of (second only, first only, rest) right."""
    draws = np.random.default_rng(rng).multinomial(n, probabilities, size=simulations)
    distinct, times = np.unique(draws, axis=0, return_counts=True)
    return sum(often * (p_value(*counts) <= 0.05) for counts, often in zip(distinct, times, strict=True)) / simulations


def mcnemar_p(second_only, first_only, rest):
    first = np.repeat([False, True, True], [second_only, first_only, rest])
    second = np.repeat([True, False, True], [second_only, first_only, rest])
    return mcnemar(first, second).p


def bootstrap_p(second_only, first_only, rest):
    first = np.repeat([0.0, 1.0, 1.0], [second_only, first_only, rest])[None]
    second = np.repeat([1.0, 0.0, 1.0], [second_only, first_only, rest])[None]
    return difference(first, second, resampling=QUICK).p_over_questions


@pytest.mark.parametrize("p_value", [mcnemar_p, bootstrap_p], ids=["exact McNemar", "paired bootstrap"])
@pytest.mark.parametrize(("n", "discordant"), [(50, 0.1), (200, 0.2), (455, 0.1)])
def test_false_positives_stay_within_the_level(p_value, n, discordant):
    assert rejections(p_value, n, [discordant / 2, discordant / 2, 1 - discordant]) <= 0.05


@pytest.mark.parametrize("p_value", [mcnemar_p, bootstrap_p], ids=["exact McNemar", "paired bootstrap"])
def test_power(p_value):
    """Six points on 455 questions (OpenBookQA), 18 % of them discordant."""
    assert rejections(p_value, 455, [0.12, 0.06, 0.82]) > 0.8


def test_gap_difference_under_the_null_and_with_an_effect():
    """Gaps of two arms are -1, 0 or 1 a question, so that differences reach from -2 to 2."""
    rng, null, effect = np.random.default_rng(6), 0, 0
    for _ in range(SIMULATIONS):
        first, second = rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.8, 0.15], size=(2, 1, 300))
        closed = rng.choice([-1.0, 0.0, 1.0], p=[0.07, 0.86, 0.07], size=(1, 300))
        null += difference(first, second, resampling=QUICK).p_over_questions <= 0.05
        effect += difference(first, closed, resampling=QUICK).p_over_questions <= 0.05
    assert null / SIMULATIONS <= 0.05
    assert effect / SIMULATIONS > 0.8


def test_interval_and_p_of_a_difference_agree():
    for won in range(10, 30):
        first = np.repeat([0.0, 1.0, 1.0], [won, 10, 160])[None]
        second = np.repeat([1.0, 0.0, 1.0], [won, 10, 160])[None]
        found = difference(first, second)
        excluded = found.over_questions.low > 0.0
        assert excluded == (found.p_over_questions <= 0.05)
        assert found.over_questions.value == pytest.approx((won - 10) / (won + 170))


# --- several runs ------------------------------------------------------------------------------------------------


def arm(rng, hardness, runs, spread, n):
    """Verdicts of runs whose skill differs from run to run, on questions that differ in hardness."""
    skill = rng.normal(0.0, spread, size=(runs, 1))
    return (rng.random((runs, n)) < 1 / (1 + np.exp(-hardness - skill))).astype(float)


@pytest.mark.parametrize(
    ("runs", "spread", "least", "most", "questions_alone"),
    [((3, 3), 0.3, 0.93, 0.97, 0.75), ((1, 3), 0.2, 0.93, 0.97, 0.93), ((3, 3), 0.0, 0.95, 1.0, 1.0)],
    ids=["three runs each", "against one model", "runs that do not differ"],
)
def test_interval_over_runs_covers(runs, spread, least, most, questions_alone):
    """Truth: no difference between the arms, only between runs; an arm of one run has none."""
    rng, over_runs, over_questions, false = np.random.default_rng(7), 0, 0, 0
    for _ in range(SIMULATIONS):
        hardness = rng.normal(0.7, 2.0, 455)
        first = arm(rng, hardness, runs[0], spread if runs[0] > 1 else 0.0, 455)
        found = difference(first, arm(rng, hardness, runs[1], spread, 455), resampling=Resampling(resamples=400))
        over_runs += holds(found.over_runs, 0.0)
        over_questions += holds(found.over_questions, 0.0)
        false += found.p_over_runs <= 0.05
    assert least <= over_runs / SIMULATIONS <= most
    assert false == SIMULATIONS - over_runs  # p and interval say the same
    assert over_questions / SIMULATIONS <= questions_alone  # where runs differ, questions alone are too sure


def test_spread_of_runs():
    first = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    found = difference(first, np.array([[1.0, 1.0, 1.0, 1.0]]))
    assert found.first_spread == pytest.approx(np.std([0.5, 0.75], ddof=1))
    assert found.second_spread is None
    assert found.over_runs.value == found.over_questions.value == pytest.approx(0.375)
    assert difference(first[:1], first[1:]).over_runs is None


# --- Holm --------------------------------------------------------------------------------------------------------


def holm_by_definition(p_values):
    """Smallest level at which the step-down procedure rejects each: tried level by level, not by a formula."""
    levels = sorted({min(1.0, p * k) for p in p_values for k in range(1, len(p_values) + 1)})
    corrected = [1.0] * len(p_values)
    for level in reversed(levels):
        left = sorted(range(len(p_values)), key=lambda index: p_values[index])
        while left and p_values[left[0]] * len(left) <= level:
            corrected[left.pop(0)] = level
    return corrected


@given(st.lists(st.sampled_from([0.0, 0.001, 0.004, 0.01, 0.0125, 0.02, 0.03, 0.04, 0.2, 0.9, 1.0]), max_size=7))
@settings(deadline=None)
def test_holm_against_its_definition(p_values):
    assert holm(p_values) == pytest.approx(holm_by_definition(p_values))


def test_holm_by_hand():
    """0.004 x 4; 0.02 x 3; 0.03 x 2 = 0.06 again; 0.5 x 1."""
    assert holm([0.03, 0.004, 0.5, 0.02]) == pytest.approx([0.06, 0.016, 0.5, 0.06])


def test_family_wise_error():
    """Five arms like the first one; their tests are dependent, since all share it."""
    rng = np.random.default_rng(8)
    plain = corrected = 0
    for _ in range(SIMULATIONS):
        right = rng.random((6, 200)) < 0.7
        p_values = [mcnemar(right[0], other).p for other in right[1:]]
        plain += min(p_values) <= 0.05
        corrected += min(holm(p_values)) <= 0.05
    assert corrected / SIMULATIONS <= 0.05
    assert plain / SIMULATIONS > 0.09  # what the correction is for


def _speech(mean):
    return mean["speech"]
