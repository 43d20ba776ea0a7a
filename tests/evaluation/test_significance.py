"""Tests of differences: false positives, power and p values, by simulation and against independent routes."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_rewards.evaluation.statistics import Resampling, difference, holm, mcnemar

SIMULATIONS = 2000
QUICK, QUICKEST = Resampling(resamples=1000), Resampling(resamples=400)


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
        null += difference(first, second, resampling=QUICKEST).p_over_questions <= 0.05
        effect += difference(first, closed, resampling=QUICKEST).p_over_questions <= 0.05
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


def arm(rng, hardness, runs, spread, n):
    """Verdicts of runs whose skill differs from run to run, on questions that differ in hardness."""
    skill = rng.normal(0.0, spread, size=(runs, 1))
    return (rng.random((runs, n)) < 1 / (1 + np.exp(-hardness - skill))).astype(float)


@pytest.mark.parametrize(
    ("runs", "spread", "over_runs_covers", "questions_alone_cover"),
    [
        ((3, 3), 0.3, (0.93, 0.97), (0.0, 0.75)),  # where runs differ, questions alone are too sure
        ((1, 3), 0.2, (0.93, 0.97), (0.0, 0.92)),
        ((3, 3), 0.0, (0.95, 1.0), (0.93, 0.97)),
    ],
    ids=["three runs each", "against one model", "runs that do not differ"],
)
def test_interval_over_runs_covers(runs, spread, over_runs_covers, questions_alone_cover):
    """Truth: no difference between the arms, only between runs; an arm of one run has none."""
    rng, over_runs, over_questions, false = np.random.default_rng(7), 0, 0, 0
    for _ in range(SIMULATIONS):
        hardness = rng.normal(0.7, 2.0, 455)
        first = arm(rng, hardness, runs[0], spread if runs[0] > 1 else 0.0, 455)
        found = difference(first, arm(rng, hardness, runs[1], spread, 455), resampling=QUICKEST)
        over_runs += found.over_runs.low <= 0.0 <= found.over_runs.high
        over_questions += found.over_questions.low <= 0.0 <= found.over_questions.high
        false += found.p_over_runs <= 0.05
    assert over_runs_covers[0] <= over_runs / SIMULATIONS <= over_runs_covers[1]
    assert questions_alone_cover[0] <= over_questions / SIMULATIONS <= questions_alone_cover[1]
    assert false == SIMULATIONS - over_runs  # p and interval say the same


def test_runs_that_do_not_differ_cost_little():
    """Eight runs each on 100 questions: made-up questions weigh as one of eight, and the interaction counts once."""
    rng, over_questions, wider = np.random.default_rng(7), 0, 0.0
    for _ in range(SIMULATIONS):
        hardness = rng.normal(0.7, 2.0, 100)
        found = difference(arm(rng, hardness, 8, 0.0, 100), arm(rng, hardness, 8, 0.0, 100), resampling=QUICKEST)
        width, alone = (each.high - each.low for each in (found.over_runs, found.over_questions))
        over_questions += found.over_questions.low <= 0.0 <= found.over_questions.high
        wider += width / alone / SIMULATIONS
    assert 0.93 <= over_questions / SIMULATIONS <= 0.97
    assert wider < 1.3


def test_difference_of_questions_with_many_samples_covers():
    """Eight samples a question: differences are small, and so must be the weight of the made-up questions."""
    rng, covered = np.random.default_rng(12), 0
    for _ in range(SIMULATIONS):
        first, second = rng.binomial(8, [[0.7], [0.75]], size=(2, 60)) / 8
        found = difference(first[None], second[None], samples=8, resampling=QUICKEST).over_questions
        covered += found.low <= 0.05 + 1e-9 and found.high >= 0.05 - 1e-9
    assert 0.93 <= covered / SIMULATIONS <= 0.97


def test_one_question_says_nothing_about_runs():
    found = difference(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]]))
    assert found.over_runs is found.p_over_runs is None
    assert found.over_questions.low < 0.0 < found.over_questions.high


def test_spread_of_runs():
    first = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    found = difference(first, np.array([[1.0, 1.0, 1.0, 1.0]]))
    assert found.first_spread == pytest.approx(np.std([0.5, 0.75], ddof=1))
    assert found.second_spread is None
    assert found.over_runs.value == found.over_questions.value == pytest.approx(0.375)
    assert difference(first[:1], first[1:]).over_runs is None


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
    right = np.random.default_rng(8).random((SIMULATIONS, 6, 200)) < 0.7
    won = (right[:, 1:] & ~right[:, :1]).sum(axis=2)
    lost = (right[:, :1] & ~right[:, 1:]).sum(axis=2)
    p_value = functools.cache(lambda won, lost: mcnemar_p(won, lost, 0))
    plain = corrected = 0
    for counts in zip(won, lost, strict=True):
        p_values = [p_value(*each) for each in zip(*counts, strict=True)]
        plain += min(p_values) <= 0.05
        corrected += min(holm(p_values)) <= 0.05
    assert corrected / SIMULATIONS <= 0.05
    assert plain / SIMULATIONS > 0.09  # what the correction is for
