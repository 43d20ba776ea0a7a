"""One model against another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tars_rewards.drift import passes
from tars_rewards.drift.run import measure_drift
from tars_rewards.errors import ConfigError
from tars_rewards.scoring.sampling import Sampling


def test_a_model_against_itself_differs_in_nothing(omni, questions, given):
    drift = measure_drift(omni, questions, against=omni, settings=given)
    differences = [each for each in drift.curves if each.run == "difference"]
    assert len(differences) == 6 * 3
    for each in differences:
        for part in (each.layers.mean, each.layers.low, each.layers.high):
            np.testing.assert_allclose(part, 0, atol=1e-6)
    assert {each.run for each in drift.positions} == {"model", "against", "difference"}


@pytest.fixture
def other(tiny, omni):
    """The same model with noise in its decoder: a stand-in for a trained one."""
    from tars_rewards.speech.model import SpeechModel

    model = SpeechModel.load(tiny / "qwen2_5_omni", device="cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.layers:
            weight = layer.mlp.down_proj.weight
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
        model.model.get_output_embeddings().weight.mul_(-1)  # says other things
    return model


def test_a_difference_is_model_less_against_question_by_question(curve, omni, other, questions, given):
    drift = measure_drift(other, questions, against=omni, settings=given)
    for measure in ("cosine", "centred", "cka"):
        one, two = (curve(drift, "forced", measure, run=run).layers.mean for run in ("model", "against"))
        difference = curve(drift, "forced", measure, run="difference")
        np.testing.assert_allclose(difference.layers.mean, one - two, atol=1e-9)
        assert np.abs(one - two).max() > 1e-4
    values = [drift.measured[run].similarity["forced", "cosine", "matched"] for run in ("model", "against")]
    change = values[0] - values[1]
    reach = 2.5706 * change.std(0, ddof=1) / np.sqrt(6)  # Student's, of six questions
    difference = curve(drift, "forced", "cosine", run="difference").layers
    np.testing.assert_allclose(difference.high, change.mean(0) + reach, rtol=1e-4)
    alone = measure_drift(omni, questions, settings=given)
    np.testing.assert_allclose(
        curve(drift, "forced", "cosine", run="against").layers.mean, curve(alone, "forced", "cosine").layers.mean
    )


@pytest.mark.parametrize("shared", [True, False])
def test_both_models_are_fed_the_completions_of_the_one_compared_against(omni, other, questions, given, shared):
    greedy = replace(given, sampling=Sampling(n=1, temperature=0, max_new_tokens=8), shared=shared)
    drift = measure_drift(other, questions, against=omni, settings=greedy)
    own = {run: [each.completions["text"][0] for each in found.questions] for run, found in drift.measured.items()}
    assert own["model"] != own["against"]
    assert drift.measured["against"].forced == own["against"]
    assert drift.measured["model"].forced == own["against" if shared else "model"]


def test_tokens_of_another_vocabulary_are_not_taken_over(tiny, omni, questions, given):
    """The text is, and what the other model makes of it is what it would make of the text alone."""
    from tars_rewards.speech.model import SpeechModel

    stranger = SpeechModel.load(tiny / "qwen2_audio", device="cpu")
    greedy = replace(given, sampling=Sampling(n=1, temperature=0, max_new_tokens=8))
    drift = measure_drift(omni, questions, against=stranger, settings=greedy)
    said = drift.measured["against"].forced
    assert all(each.token_ids for each in said)
    assert drift.measured["model"].forced == [replace(each, token_ids=None) for each in said]


def test_models_of_different_depth_are_refused_before_the_work(omni, tiny, questions, given, monkeypatch):
    from tars_rewards.speech.model import SpeechModel

    shallow = SpeechModel.load(tiny / "qwen2_5_omni", device="cpu")
    monkeypatch.setattr(shallow, "layers", shallow.layers[:2])
    monkeypatch.setattr(passes, "measure", None)
    with pytest.raises(ConfigError, match="as many decoder layers"):
        measure_drift(omni, questions, against=shallow, settings=given)


def test_models_by_name_are_loaded_one_after_the_other(tiny, questions, given, monkeypatch):
    from tars_rewards.speech.model import SpeechModel

    alive, load = [], SpeechModel.load.__func__

    def watched(cls, *args, **kwargs):
        import weakref

        assert not any(each() for each in alive)
        model = load(cls, *args, **kwargs)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(SpeechModel, "load", classmethod(watched))
    path = str(tiny / "qwen2_5_omni")
    drift = measure_drift(path, questions[:2], against=path, settings=replace(given, centred=False))
    assert drift.models == {"model": path, "against": path}
    assert len(alive) == 4  # each looked at once before the work
