"""The engine in this process: the same completions as the model alone."""

import pytest

from tars_rewards import Question
from tars_rewards.errors import ConfigError
from tars_rewards.evaluation.engine_huggingface import HuggingFaceEngine
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.speech.model import SpeechModel

GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=32)
BOTH = ("speech", "text")


def question(number=0, audio=None):
    return Question(f"q{number}", f"What is {number}?", audio, answer="B")


@pytest.fixture(scope="module")
def local(tiny):
    return HuggingFaceEngine(str(tiny / "qwen2_audio"), device="cpu", system="You are a helpful assistant.")


def test_a_model_in_this_process_answers_as_the_model_does(local, clips):
    asked = [question(number, audio=str(clips[number])) for number in range(3)]
    found = local.complete(asked, BOTH, GREEDY)
    model = SpeechModel.load(local._model, device="cpu")
    for each, completions in zip(asked, found, strict=True):
        for modality in BOTH:
            written = modality == "text"
            prompt = model.prompt(
                question=each.prompt if written else None,
                media=None if written else each.audio,
                system="You are a helpful assistant.",
            )
            batch = model.batch([prompt], padding="left")
            ids = model.model.generate(**batch, max_new_tokens=32, do_sample=False, suppress_tokens=model.never_sampled)
            ids = ids[0, len(prompt.token_ids) :].tolist()
            [generated] = completions[modality]
            assert generated.text == model.detokenize(ids)
            assert generated.tokens == len(ids)
            assert generated.truncated == (ids[-1] not in model.stop_ids)
    assert len({completions["speech"][0].text for completions in found}) > 1


def test_a_model_is_asked_in_one_modality_only(local, clips):
    [completions] = local.complete([question(audio=str(clips[0]))], ["text"], Sampling(n=2, max_new_tokens=8))
    assert list(completions) == ["text"]
    assert len(completions["text"]) == 2


def test_a_bad_question_leaves_the_models_others_alone(local, clips, tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    first, second = local.complete(
        [question(0, audio=str(tmp_path / "a.wav")), question(1, audio=str(clips[1]))], BOTH, GREEDY
    )
    assert "question 'q0'" in str(first)
    assert set(second) == {"speech", "text"}


def test_a_model_is_not_loaded_before_it_is_needed():
    unloaded = HuggingFaceEngine("no/such/model")
    assert unloaded.settings() == {"engine": "huggingface", "dtype": "auto"}
    with pytest.raises(ConfigError, match="no/such/model"):
        unloaded.complete([question()], BOTH, GREEDY)
