"""Whole measurements on tiny Speech LLMs: constructed cases, and the same figures by another route."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tars_rewards import TARSConfig
from tars_rewards.batch import RolloutBatch
from tars_rewards.drift.measures import debiased_cka
from tars_rewards.drift.passes import partners
from tars_rewards.drift.run import measure_drift
from tars_rewards.drift.states import Forcing, force
from tars_rewards.representation import representation_term
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.scorer import Scorer

LAYERS = 3


@pytest.fixture
def deaf(speech_model, questions, monkeypatch):
    """A model that takes every clip for the question written down: both modalities have the same prompt."""
    written = {question.audio["path"]: question.prompt for question in questions}
    prompt = speech_model.prompt

    def same(*, question, media, system=None, instruction=None):
        text = question if media is None else written[media["path"]]
        return prompt(question=text, media=None, system=system, instruction=instruction)

    monkeypatch.setattr(speech_model, "prompt", same)
    return speech_model


def test_the_same_prompt_in_both_modalities_does_not_drift(figure, curve, deaf, questions, embedder, given):
    greedy = replace(given, sampling=Sampling(n=1, temperature=0, max_new_tokens=12), config=TARSConfig())
    drift = measure_drift(deaf, questions, settings=greedy, embedder=embedder)
    for states in ("forced", "rollouts"):
        for measure in ("cosine", "centred", "cka"):
            found = curve(drift, states, measure)
            np.testing.assert_allclose(found.layers.mean, np.ones(LAYERS), atol=1e-5)
            np.testing.assert_allclose(found.overall.mean, 1, atol=1e-5)
            other = curve(drift, states, measure, "mismatched")
            assert other.layers.mean.max() < 1 - 1e-4  # another question's prompt is not the same
            margin = curve(drift, states, measure, "margin")
            np.testing.assert_allclose(margin.layers.mean, found.layers.mean - other.layers.mean, atol=1e-9)
    assert figure(drift, "diverged") == figure(drift, "length_distance") == 0
    assert figure(drift, "shared_tokens") == 1
    assert np.isnan(figure(drift, "first_diverging_token"))
    assert figure(drift, "semantic_consistency") == pytest.approx(1, abs=1e-6)
    assert figure(drift, "semantic_consistency_mismatched") < 1
    for trend in drift.trends:
        if trend.pairs == "matched":
            np.testing.assert_allclose(trend.layers.mean, 0, atol=1e-5)


def test_forced_cosine_is_that_of_the_text_completion_after_both_prompts(curve, speech_model, questions, given):
    drift = measure_drift(speech_model, questions, settings=given, system="Be brief.", instruction="Think first.")
    texts = {"system": "Be brief.", "instruction": "Think first."}
    partner = partners(len(questions), given.seed)
    raw = {"matched": [], "mismatched": []}
    for index, question in enumerate(questions):
        completion = question.completions["text"][0].text
        tokens = (*speech_model.tokenize(completion), speech_model.end_of_turn)
        heard = [
            speech_model.prompt(question=None, media=each.audio, **texts)
            for each in (question, questions[partner[index]])
        ]
        read = speech_model.prompt(question=question.prompt, media=None, **texts)
        cosines = force(speech_model, [Forcing((read, *heard), tokens)])[0].cosine
        for pairs, of_tokens in zip(raw, cosines, strict=True):
            raw[pairs].append(of_tokens.mean(0).numpy())
    for pairs, expected in raw.items():
        np.testing.assert_allclose(drift.measured["model"].similarity["forced", "cosine", pairs], expected, atol=2e-5)
        np.testing.assert_allclose(curve(drift, "forced", "cosine", pairs).layers.mean, np.mean(expected, 0), atol=2e-5)


def test_centred_cosine_and_cka_follow_from_plain_states(curve, speech_model, questions, given):
    """From token states of separate forwards, kept whole: what the measurement never does."""
    drift = measure_drift(speech_model, questions, settings=given)

    def states_of(index, audio):
        question = questions[index]
        tokens = (*speech_model.tokenize(question.completions["text"][0].text), speech_model.end_of_turn)
        prompt = speech_model.prompt(question=None if audio else question.prompt, media=audio)
        batch = speech_model.batch([prompt], [tokens], padding="right")
        with torch.no_grad():
            hidden = speech_model.model(**batch, output_hidden_states=True).hidden_states[1:-1]
        return torch.stack([each[0, len(prompt.token_ids) :] for each in hidden]).double()

    kept = [[states_of(index, audio) for audio in (None, each.audio)] for index, each in enumerate(questions)]
    pooled = [torch.stack([states[side].mean(1) for states in kept]) for side in (0, 1)]
    partner = partners(len(questions), given.seed)
    expected = {"matched": [], "mismatched": []}
    for index, (written, spoken) in enumerate(kept):
        for pairs, other in (("matched", spoken), ("mismatched", states_of(index, questions[partner[index]].audio))):
            cosines = torch.nn.functional.cosine_similarity(
                written - pooled[0].mean(0)[:, None], other - pooled[1].mean(0)[:, None], dim=-1
            )
            expected[pairs].append(cosines.mean(1))
    for pairs, values in expected.items():
        found = curve(drift, "forced", "centred", pairs).layers.mean[:-1]
        np.testing.assert_allclose(found, torch.stack(values).mean(0), atol=5e-5)
    for layer in range(LAYERS - 1):
        centred = []
        for side in pooled:  # U-centring (Székely and Rizzo 2014), in which the debiased HSIC is an inner product
            kernel = (side[:, layer] @ side[:, layer].T).numpy()
            np.fill_diagonal(kernel, 0)
            count = len(kernel)
            rows = kernel.sum(1) / (count - 2)
            kernel = kernel - rows[:, None] - rows + kernel.sum() / ((count - 1) * (count - 2))
            np.fill_diagonal(kernel, 0)
            centred.append(kernel)
        cka = (centred[0] * centred[1]).sum() / np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
        assert curve(drift, "forced", "cka").layers.mean[layer] == pytest.approx(cka, abs=2e-3)


def test_own_completions_are_compared_as_the_representation_term_does(curve, speech_model, questions, given):
    drift = measure_drift(speech_model, questions, settings=given)
    config = TARSConfig(beta=0)
    expected, states = [], []
    for question in questions:
        judged = {
            name: [replace(each, correct=False) for each in question.completions[name]] for name in ("speech", "text")
        }
        scored = next(Scorer(speech_model, config=config).score([replace(question, completions=judged)]))
        reference = torch.tensor([2, 3, -1, -1])  # sample with sample
        _, layers = representation_term(RolloutBatch.from_rollouts(scored.rollouts, config), reference)
        expected.append(layers[:2].mean(0).numpy())
        states.append(torch.stack([rollout.hidden_states for rollout in scored.rollouts]))
    found = drift.measured["model"].similarity["rollouts", "cosine", "matched"]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    speech, text = torch.stack(states)[:, :2], torch.stack(states)[:, 2:]
    for pairs, other in (("matched", speech), ("mismatched", speech[partners(len(questions), given.seed)])):
        centred = torch.nn.functional.cosine_similarity(other - speech.mean((0, 1)), text - text.mean((0, 1)), dim=-1)
        found = curve(drift, "rollouts", "centred", pairs).layers.mean
        np.testing.assert_allclose(found, centred.mean((0, 1)), atol=1e-4)
        cka = np.mean([debiased_cka(other[:, sample], text[:, sample]).value for sample in (0, 1)], axis=0)
        np.testing.assert_allclose(curve(drift, "rollouts", "cka", pairs).layers.mean, cka, atol=1e-3)


@pytest.mark.parametrize("budget", [1, 300])
def test_figures_do_not_depend_on_how_rows_are_batched(omni, questions, given, budget):
    usual, small = (
        measure_drift(omni, questions, settings=given, token_budget=tokens).measured["model"]
        for tokens in (16_384, budget)
    )
    for key, values in usual.similarity.items():
        np.testing.assert_allclose(small.similarity[key], values, atol=5e-5)
    for key, values in usual.positions.items():
        np.testing.assert_allclose(small.positions[key], values, atol=1e-4)


def test_every_question_gets_another_ones_clip():
    for count in (2, 3, 17, 100):
        partner = partners(count, seed=count)
        assert sorted(partner) == list(range(count))
        assert (partner != np.arange(count)).all()
    assert partners(100, 0).tolist() == partners(100, 0).tolist() != partners(100, 1).tolist()


def test_more_questions_than_are_in_memory_at_once(omni, questions, given):
    """40 questions: chunks whose last partner is in the next one, and the circle's last whose partner is the first."""
    many = [replace(questions[index % 6], id=str(index)) for index in range(40)]
    found = measure_drift(omni, many, settings=replace(given, centred=False)).measured["model"]
    alone = measure_drift(omni, questions, settings=replace(given, centred=False)).measured["model"]
    for index in range(40):
        for states in ("forced", "rollouts"):
            values = found.similarity[states, "cosine", "matched"][index]
            np.testing.assert_allclose(values, alone.similarity[states, "cosine", "matched"][index % 6], atol=2e-5)
    partner = partners(40, given.seed)
    alike = [partner[index] % 6 == index % 6 for index in range(40)]  # the partner is a copy
    assert 0 < sum(alike) < 40
    matched, mismatched = (found.similarity["forced", "cosine", pairs] for pairs in ("matched", "mismatched"))
    assert (np.abs(matched - mismatched).max(axis=1) < 1e-5).tolist() == alike


@pytest.mark.parametrize("forced", ["text", "speech", "reference"])
def test_which_completion_is_forced(omni, questions, given, forced):
    found = measure_drift(omni, questions, settings=replace(given, forced=forced)).measured["model"]
    assert [each.text for each in found.forced] == [each.completions[forced][0].text for each in questions]


def test_completions_are_the_scorers(omni, questions, given):
    sampling = Sampling(n=2, temperature=1.0, max_new_tokens=6, seed=3)
    found = measure_drift(omni, questions, settings=replace(given, sampling=sampling)).measured["model"]
    scorer = Scorer(omni, config=TARSConfig(beta=0))
    expected = scorer.sample(questions, 2, temperature=1.0, max_new_tokens=6, seed=3)
    for mine, theirs in zip(found.questions, expected, strict=True):
        assert mine.completions == theirs.completions


def test_behaviour_is_that_of_the_pairs(figure, omni, questions, given):
    drift = measure_drift(omni, questions, settings=given)
    found = drift.measured["model"].behavior
    # Of the two pairs of a question only the first states answers, and they agree where the number is even.
    assert found["answer_agreement_stated"].tolist() == [1, 0, 1, 0, 1, 0]
    assert found["answer_agreement"].tolist() == [0.5, 0, 0.5, 0, 0.5, 0]
    assert figure(drift, "answer_agreement_stated") == 0.5
    # The steps "0+0." and so on are shared; the spoken one goes on with "So". In the second pair nothing is.
    steps = [(number + 2) / (number + 3) for number in range(6)]
    np.testing.assert_allclose(found["shared_steps"], np.array(steps) / 2)
    lengths = [
        [
            len(omni.tokenize(each.text)) + (not each.truncated)
            for name in ("speech", "text")
            for each in question.completions[name]
        ]
        for question in questions
    ]
    assert found["length_difference"].tolist() == [(a + b - c - d) / 2 for a, b, c, d in lengths]
