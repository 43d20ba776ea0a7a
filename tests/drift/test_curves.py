"""From values by question to curves: on values that are made up, without a model."""

from dataclasses import replace

import numpy as np
import pytest

from tars_rewards import Completion, Question
from tars_rewards.drift.curves import Estimator
from tars_rewards.drift.measures import CKA
from tars_rewards.drift.model_drift import ModelDrift
from tars_rewards.drift.settings import DriftSettings

COUNT, LAYERS = 30, 2


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def estimator():
    return Estimator(DriftSettings(resamples=400))


def made_up(generator, *, shift=0.0, places=4):
    """Similarities around 0.5, mismatched ones around 0.2; falling by 0.3 along the completion."""
    base = {"matched": 0.5 + shift, "mismatched": 0.2}
    noise = generator.normal(scale=0.05, size=(COUNT, LAYERS))
    similarity = {(states, "cosine", pairs): base[pairs] + noise for states in ("forced", "rollouts") for pairs in base}
    falling = np.linspace(0, -0.3, 10)[None, :, None]
    positions = {("cosine", pairs, "tenths"): base[pairs] + noise[:, None] + falling for pairs in base}
    positions |= {("cosine", pairs, "tokens"): base[pairs] + noise[:, None].repeat(places, 1) for pairs in base}
    cka = {
        (states, pairs): CKA(np.full(LAYERS, base[pairs]), base[pairs] + noise / 100)
        for states in ("forced", "rollouts")
        for pairs in base
    }
    behavior = {
        "answer_agreement": (np.arange(COUNT) < COUNT // 2).astype(float),
        "length_difference": noise[:, 0] + shift,
        "length_distance": (np.arange(COUNT) == 3) * 1.0,
    }
    question = Question("q", "?")
    return ModelDrift([question] * COUNT, [Completion("a")] * COUNT, similarity, cka, positions, behavior)


def test_a_pure_shift_is_a_certain_difference_whatever_the_spread(generator, estimator):
    """The two models' values move together: only a paired interval can see that the shift is the same everywhere."""
    one = made_up(generator)
    other = replace(
        one, similarity={key: values + 0.01 * (key[2] == "matched") for key, values in one.similarity.items()}
    )
    curves = {
        (each.run, each.states, each.measure, each.pairs): each
        for each in estimator.curves({"model": other, "against": one})
    }
    alone = curves["model", "forced", "cosine", "matched"].layers
    assert (alone.high - alone.low > 0.02).all()
    difference = curves["difference", "forced", "cosine", "matched"].layers
    np.testing.assert_allclose([difference.mean, difference.low, difference.high], 0.01, atol=1e-6)
    np.testing.assert_allclose(curves["difference", "forced", "cosine", "mismatched"].layers.mean, 0, atol=1e-12)
    np.testing.assert_allclose(curves["difference", "forced", "cosine", "margin"].overall.mean, 0.01, atol=1e-9)


def test_signs(generator, estimator):
    one, other = made_up(generator), made_up(generator, shift=0.2)
    found = {
        (each.run, each.measure, each.states, each.pairs): each
        for each in estimator.curves({"model": other, "against": one})
    }
    for measure in ("cosine", "cka"):
        assert found["difference", measure, "forced", "matched"].overall.mean[0] == pytest.approx(0.2, abs=0.05)
        assert found["model", measure, "forced", "margin"].overall.mean[0] == pytest.approx(0.5, abs=0.05)
        assert found["against", measure, "forced", "margin"].overall.mean[0] == pytest.approx(0.3, abs=0.05)
    figures = {(each.run, each.name): each.estimate for each in estimator.figures({"model": other, "against": one})}
    assert figures["difference", "length_difference"].mean[0] == pytest.approx(0.2, abs=0.05)


def test_drift_along_the_completion_is_below_zero(generator, estimator):
    trends = {(each.run, each.pairs): each for each in estimator.trends({"model": made_up(generator)})}
    np.testing.assert_allclose(trends["model", "matched"].layers.mean, -0.3)
    np.testing.assert_allclose(trends["model", "margin"].overall.mean, 0, atol=1e-9)


def test_places_keep_their_order_and_layers(generator, estimator):
    one = made_up(generator)
    values = np.broadcast_to(np.arange(4)[:, None] * 10 + np.arange(LAYERS), (COUNT, 4, LAYERS)) / 100
    one = replace(one, positions={("cosine", pairs, "tokens"): values for pairs in ("matched", "mismatched")})
    curves = {each.layer: each.along.mean for each in estimator.positions({"model": one}) if each.pairs == "matched"}
    assert set(curves) == {0, 1, None}
    np.testing.assert_allclose(curves[0], [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(curves[1], [0.01, 0.11, 0.21, 0.31])
    np.testing.assert_allclose(curves[None], [0.005, 0.105, 0.205, 0.305])


def test_models_whose_completions_differ_in_length_are_compared_where_both_have_tokens(generator, estimator):
    measured = {"model": made_up(generator, places=3), "against": made_up(generator, places=5)}
    found = {
        each.run: each.along.questions.tolist()
        for each in estimator.positions(measured)
        if (each.pairs, each.places, each.layer) == ("matched", "tokens", None)
    }
    assert found == {"model": [COUNT] * 3, "against": [COUNT] * 5, "difference": [COUNT] * 3 + [0, 0]}


def test_shares_that_never_change_claim_no_certainty(generator, estimator):
    one = made_up(generator)
    figures = {(each.run, each.name): each.estimate for each in estimator.figures({"model": one, "against": one})}
    assert figures["model", "answer_agreement"].mean[0] == 0.5
    assert figures["model", "answer_agreement"].high[0] == pytest.approx(0.669, abs=0.002)  # Wilson, 15 of 30
    change = figures["difference", "answer_agreement"]
    assert change.mean[0] == 0
    assert np.isnan([change.low[0], change.high[0]]).all()


def test_counts_are_not_below_zero(generator, estimator):
    figures = {each.name: each.estimate for each in estimator.figures({"model": made_up(generator)})}
    assert figures["length_distance"].low[0] == 0  # Student's would be below
    assert figures["length_difference"].low[0] < 0
