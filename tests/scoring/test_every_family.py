"""The scorer on a tiny model of every family: what goes in, what is asked of each, comes out alike."""

import io

import numpy as np
import pytest
import torch
from tiny_registry import families, media

from tars_rewards import Question, Scorer, TARSConfig
from tars_rewards.speech.model import SpeechModel

FAMILIES = {module.NAME: module for module in families()}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request, tmp_path_factory):
    module = FAMILIES[request.param]
    if not module.available():
        pytest.skip(f"the installed transformers has no {request.param}")
    return module, SpeechModel.load(module.make(tmp_path_factory.mktemp(request.param)), device="cpu")


def question(module, number):
    medium = getattr(module, "MEDIUM", "audio")
    given = media(module, number)
    if medium == "image":
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(given).save(file, "PNG")
        given = {"bytes": file.getvalue()}
    else:
        given = {"array": given, "sampling_rate": 16000}
    target = "image" if medium == "image" else "speech"
    texts = ["<think>two</think><answer>The answer is 4.</answer>", "it is four"]
    return Question.from_row(
        {
            "id": f"q{number}",
            "prompt": "2+2?",
            medium: given,
            "answer": "4",
            "completions": {target: texts, "text": texts},
        }
    )


def scorer_for(module, speech, **settings):
    target = "image" if getattr(module, "MEDIUM", "audio") == "image" else "speech"
    return Scorer(speech, config=TARSConfig(beta=0, target_modality=target), **settings)


def test_log_probs_are_those_of_the_whole_logits(family):
    """The head is asked for the completions' tokens only; here it is asked for all."""
    module, speech = family
    for scored in scorer_for(module, speech).score([question(module, number) for number in range(2)]):
        for rollout, log_probs in zip(scored.rollouts, scored.log_probs, strict=True):
            written = rollout.modality == "text"
            given = scored.question.audio if scored.question.image is None else scored.question.image
            prompt = speech.prompt(question="2+2?" if written else None, media=None if written else given)
            tokens = [*speech.tokenize(rollout.completion), speech.end_of_turn]
            batch = speech.batch([prompt], [tokens], padding="right")
            with torch.no_grad():
                logits = speech.model(**batch).logits[0, len(prompt.token_ids) - 1 : -1].float()
            logits[:, speech.never_sampled] = -torch.inf
            expected = logits.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)]
            torch.testing.assert_close(log_probs, expected, atol=2e-5, rtol=1e-5)


def test_rewards_tell_the_modalities_and_the_media_apart(family):
    module, speech = family
    first, second = scorer_for(module, speech).score([question(module, number) for number in range(2)])
    row = first.rows()[0]
    assert row["modality"] in ("speech", "image")
    assert row["reference"] == 0
    assert row["representation"] < 1 - 1e-6  # what is heard differs from what is read
    other = second.rows()[0]
    assert abs(row["log_prob"] - other["log_prob"]) > 1e-5  # and one clip from another
    assert [each["log_prob"] for each in first.rows()[2:]] == pytest.approx(
        [each["log_prob"] for each in second.rows()[2:]], abs=1e-3
    )


def test_completions_are_sampled_and_scored(family):
    module, speech = family
    scorer = scorer_for(module, speech)
    questions = [question(module, number) for number in range(2)]
    together = list(scorer.sample(questions, n=2, max_new_tokens=6))
    for scored in scorer.score(together):
        assert len(scored.rollouts) == 4
        assert all(np.isfinite(row["log_prob"]) and row["log_prob"] > -1000 for row in scored.rows())
    alone = [
        sampled
        for each in questions
        for sampled in scorer_for(module, speech, token_budget=1).sample([each], n=2, max_new_tokens=6)
    ]
    assert [each.completions for each in alone] == [each.completions for each in together]
