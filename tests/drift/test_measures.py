"""Cosine, centred cosine and debiased CKA, against their definitions written out in numpy."""

import itertools

import numpy as np
import pytest
import torch

from tars_rewards.drift.measures import centre, centred_cosine, debiased_cka


def hsic_by_definition(left, right):
    """The U-statistic: mean over all ordered quadruples of different questions (Song et al. 2012, section 3.2)."""
    kernel, other = left @ left.T, right @ right.T
    terms = [
        kernel[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
        for i, j, q, r in itertools.permutations(range(len(left)), 4)
    ]
    return np.mean(terms)


def cka_by_definition(left, right):
    return hsic_by_definition(left, right) / np.sqrt(hsic_by_definition(left, left) * hsic_by_definition(right, right))


def biased_cka(left, right):
    """Kornblith et al. 2019, on centred features."""
    left, right = left - left.mean(0), right - right.mean(0)
    across = np.linalg.norm(left.T @ right) ** 2
    return across / (np.linalg.norm(left.T @ left) * np.linalg.norm(right.T @ right))


def one_layer(states):
    return torch.from_numpy(np.asarray(states))[:, None]


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def related(generator):
    left = generator.normal(size=(7, 5)) + 3
    return left, left @ generator.normal(size=(5, 4)) + generator.normal(size=(7, 4))


def test_cka_is_its_definition(related):
    found = debiased_cka(*map(one_layer, related))
    assert found.value.tolist() == pytest.approx([cka_by_definition(*related)], abs=1e-12)


def test_cka_without_a_question_is_that_of_the_others(related):
    left, right = related
    expected = [cka_by_definition(np.delete(left, i, 0), np.delete(right, i, 0)) for i in range(7)]
    assert debiased_cka(*map(one_layer, related)).without[:, 0].tolist() == pytest.approx(expected, abs=1e-10)


def test_layers_do_not_mix(related, generator):
    left, right = related
    noise = generator.normal(size=left.shape)
    both = debiased_cka(torch.from_numpy(np.stack([left, noise], 1)), torch.from_numpy(np.stack([right, right], 1)))
    for layer, states in enumerate((left, noise)):
        alone = debiased_cka(one_layer(states), one_layer(right))
        assert both.value[layer] == alone.value[0]
        assert both.without[:, layer].tolist() == alone.without[:, 0].tolist()


def test_cka_does_not_see_rotation_scale_and_shift(related, generator):
    left, right = related
    rotation = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    moved = -7 * left @ rotation + 1000 * generator.normal(size=5)
    expected = debiased_cka(one_layer(left), one_layer(right)).value
    assert debiased_cka(one_layer(moved), one_layer(right)).value.tolist() == pytest.approx(expected.tolist(), abs=1e-9)
    assert debiased_cka(one_layer(moved), one_layer(left)).value.tolist() == pytest.approx([1.0], abs=1e-9)


def test_cka_sees_a_shear(related):
    left, _ = related
    sheared = left * np.array([10, 1, 1, 1, 0.1])
    assert debiased_cka(one_layer(left), one_layer(sheared)).value[0] < 0.95


def test_features_that_outnumber_the_questions_do_not_look_alike(generator):
    found, biased = [], []
    for _ in range(20):
        left, right = generator.normal(size=(2, 12, 2000))
        biased.append(biased_cka(left, right))
        found.append(debiased_cka(one_layer(left), one_layer(right)).value[0])
    assert min(biased) > 0.9
    assert abs(np.mean(found)) < 0.1
    assert min(found) < 0  # no clipping at zero, which would bias the mean upwards


def test_float32_states_with_massive_dimensions_keep_their_precision(related):
    left, right = related
    massive = np.zeros(5)
    massive[2] = 2.0**12
    found = debiased_cka(one_layer((left + massive).astype(np.float32)), one_layer(right)).value[0]
    assert found == pytest.approx(cka_by_definition(left, right), abs=1e-3)


@pytest.mark.parametrize(("questions", "value", "without"), [(3, False, False), (4, True, False), (5, True, True)])
def test_least_number_of_questions(generator, questions, value, without):
    left, right = generator.normal(size=(2, questions, 6))
    found = debiased_cka(one_layer(left), one_layer(right))
    assert np.isfinite(found.value).all() == value
    assert np.isfinite(found.without).all() == without
    assert found.without.shape == (questions, 1)


def test_states_that_do_not_vary_have_no_cka(related):
    left, right = related
    for same in (np.ones((7, 5)), np.zeros((7, 5)), np.full((7, 5), 0.1, np.float32)):
        assert np.isnan(debiased_cka(one_layer(same), one_layer(right)).value).all()
    # Six the same and one different vary; without the different one they do not.
    one_differs = np.ones((7, 5))
    one_differs[3, 0] = 2
    found = debiased_cka(one_layer(one_differs), one_layer(left))
    assert np.isnan(found.without[3, 0])


def test_other_questions_are_refused(related):
    left, right = related
    with pytest.raises(ValueError, match="same questions"):
        debiased_cka(one_layer(left), one_layer(right[:-1]))


def test_centred_cosine_is_that_of_numpy(generator):
    left, right = generator.normal(size=(2, 6, 3, 5)) + 4
    means = [torch.from_numpy(states.mean(0)) for states in (left, right)]
    values, exists = centred_cosine(torch.from_numpy(left), torch.from_numpy(right), *means)
    one, other = left - left.mean(0), right - right.mean(0)
    expected = (one * other).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))
    torch.testing.assert_close(values.double(), torch.from_numpy(expected), atol=1e-6, rtol=0)
    assert exists.all()


def test_centring_takes_away_what_all_questions_of_a_modality_share(generator):
    alike = torch.from_numpy(generator.normal(size=(50, 64)))
    offset = torch.zeros(64)
    offset[3] = 300.0
    unlike = torch.from_numpy(generator.normal(size=(50, 64)))
    raw = torch.cosine_similarity(alike + offset, unlike + offset, dim=-1)
    assert raw.min() > 0.99  # a massive dimension makes everything alike
    values, _ = centred_cosine(alike + offset, unlike + offset, (alike + offset).mean(0), (unlike + offset).mean(0))
    assert abs(values.mean()) < 0.05
    values, _ = centred_cosine(alike + offset, alike, (alike + offset).mean(0), alike.mean(0))
    torch.testing.assert_close(values, torch.ones(50), atol=1e-4, rtol=0)


def test_a_state_that_is_the_mean_has_no_centred_cosine():
    states = torch.tensor([[0.1, 0.2, 3000.0]])
    assert centre(states, states + 1e-5).tolist() == [[0.0, 0.0, 0.0]]
    assert not centred_cosine(states, states, states + 1e-5, states)[1].any()
    assert centred_cosine(states, states, states + 1.0, states + 1.0)[1].all()
