"""What cannot be measured: named, or left out whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tars_rewards import Question
from tars_rewards.drift.run import measure_drift
from tars_rewards.drift.settings import DriftSettings
from tars_rewards.errors import ConfigError, InputError, ScoringError
from tars_rewards.scoring.sampling import Sampling


def bad(question, **changes):
    return Question.from_row({**question.to_row(), **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"audio": {"bytes": "UklGRg=="}}, "cannot be read"),
        ({"audio": None}, "field 'audio'"),
        ({"prompt": ""}, "field 'prompt'"),
        ({"completions": {"speech": ["a"], "text": ["b", "c"]}}, "expected 2 of speech and of text"),
        ({"completions": {}}, "got 0 and 0"),
        ({"completions": {"speech": ["a", "b"], "text": [{"text": "", "truncated": True}, "c"]}}, "at least one token"),
    ],
)
def test_a_bad_question_is_named_or_left_out_whole(omni, questions, given, changes, expected):
    spoilt = [*questions[:3], bad(questions[3], **changes), *questions[4:]]
    with pytest.raises(InputError, match="1 of 6 questions cannot be measured") as caught:
        measure_drift(omni, spoilt, settings=given)
    assert "question 'q3'" in str(caught.value)
    assert expected in str(caught.value)
    drift = measure_drift(omni, spoilt, settings=given, skip_bad=True)
    assert list(drift.left_out) == ["q3"]
    assert expected in drift.left_out["q3"]
    without = measure_drift(omni, [each for each in questions if each.id != "q3"], settings=given)
    for found, alone in zip(drift.curves, without.curves, strict=True):
        np.testing.assert_allclose(found.layers.mean, alone.layers.mean, atol=1e-5)
        assert set(found.layers.questions) == {5}


def test_a_bad_question_is_found_before_sampling_ends_up_in_nothing(omni, questions, given):
    greedy = replace(given, sampling=Sampling(n=1, temperature=0, max_new_tokens=4))
    spoilt = [*questions[:5], bad(questions[5], audio={"bytes": "UklGRg=="})]
    drift = measure_drift(omni, spoilt, settings=greedy, against=omni, skip_bad=True)
    assert list(drift.left_out) == ["q5"]
    assert {len(each.questions) for each in drift.measured.values()} == {5}


@pytest.mark.parametrize(
    "changes", [{"audio": {"bytes": "UklGRg=="}}, {"audio": None}, {"prompt": ""}, {"completions": {}}]
)
def test_a_bad_question_is_told_before_any_is_sampled(omni, questions, given, monkeypatch, changes):
    def sampled(*_):
        raise AssertionError("sampled")

    monkeypatch.setattr("tars_rewards.scoring.scorer.Scorer.sample_batch", sampled)
    greedy = replace(given, sampling=Sampling(n=1, temperature=0, max_new_tokens=4))
    spoilt = [*questions[:5], bad(questions[5], **changes)]
    with pytest.raises(InputError, match="1 of 6 questions cannot be measured"):
        measure_drift(omni, spoilt, settings=replace(greedy, forced="reference"))


def test_a_question_that_does_not_fit_the_memory_is_left_out(omni, questions, given, monkeypatch):
    longest = max(questions, key=lambda each: len(each.completions["text"][0].text))
    stock, limit = omni.model.forward, 0

    def forward_(**batch):
        nonlocal limit
        tokens = batch["input_ids"].shape[1]
        if limit and tokens >= limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return stock(**batch)

    monkeypatch.setattr(omni.model, "forward", forward_)
    prompt = omni.prompt(question=None, media=longest.audio)
    limit = len(prompt.token_ids) + len(omni.tokenize(longest.completions["speech"][0].text)) + 1
    with pytest.raises(ScoringError, match=f"question '{longest.id}'"):
        measure_drift(omni, questions, settings=given)
    drift = measure_drift(omni, questions, settings=given, skip_bad=True)
    assert list(drift.left_out) == [longest.id]
    assert "does not fit the memory" in drift.left_out[longest.id]


def test_what_cannot_be_measured_is_refused(omni, tiny, questions, given):
    with pytest.raises(InputError, match="each id once, got 'q0'"):
        measure_drift(omni, [questions[0], questions[0]], settings=given)
    with pytest.raises(InputError, match="at least 2 questions that can be measured, got 1"):
        measure_drift(omni, questions[:1], settings=given)
    nothing = [bad(each, completions={"speech": ["a"], "text": ["b"]}) for each in questions]
    with pytest.raises(InputError, match=r"completions\.reference"):
        measure_drift(omni, nothing, settings=replace(given, forced="reference"))


def test_two_or_three_questions_have_no_cka_but_the_rest(curve, omni, questions, given):
    drift = measure_drift(omni, questions[:2], settings=given)
    assert np.isnan(curve(drift, "forced", "cka").layers.mean).all()
    assert np.isfinite(curve(drift, "forced", "cosine").layers.mean).all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("forced", "audio"), ("bucket_tokens", 0), ("resamples", 10), ("seed", -1), ("confidence", 1.0)],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} is"):
        DriftSettings(**{setting: value})
