"""Two tiny Speech LLMs, and questions for them, with completions that differ between the modalities."""

import numpy as np
import pytest

from tars_rewards import Question, TARSConfig
from tars_rewards.drift.settings import DriftSettings

SYSTEM = "You are a helpful assistant."


@pytest.fixture(scope="session", params=["qwen2_audio", "qwen2_5_omni"])
def speech_model(request, tiny):
    from tars_rewards.speech.model import SpeechModel

    return SpeechModel.load(tiny / request.param, device="cpu")


@pytest.fixture(scope="session")
def omni(tiny):
    from tars_rewards.speech.model import SpeechModel

    return SpeechModel.load(tiny / "qwen2_5_omni", device="cpu")


@pytest.fixture(scope="session")
def questions(clips):
    def make(number):
        steps = " ".join(f"{number}+{step}." for step in range(number + 2))
        return Question.from_row(
            {
                "id": f"q{number}",
                "prompt": f"What is {number} plus 2?",
                "audio": str(clips[number]),
                "completions": {
                    "speech": [f"<think>{steps} So</think><answer>The answer is {number}.</answer>", "no idea"],
                    "text": [
                        f"<think>{steps}</think><answer>The answer is {number + number % 2}.</answer>",
                        {"text": "It is", "truncated": True},
                    ],
                    "reference": [f"the reference {number}"],
                },
            }
        )

    return [make(number) for number in range(6)]


class LetterEmbedder:
    """Counts letters: real vectors that differ between texts, without a model."""

    max_tokens = float("inf")

    def encode(self, texts):
        return np.array([[1.0 + text.count(chr(code)) for code in range(48, 123)] for text in texts], np.float32)


@pytest.fixture(scope="session")
def embedder():
    return LetterEmbedder()


@pytest.fixture(scope="session")
def given():
    """Settings that take the questions' completions and embed nothing."""
    return DriftSettings(sampling=None, bucket_tokens=8, resamples=200, config=TARSConfig(beta=0))


@pytest.fixture(scope="session")
def curve():
    """Find a curve of a measurement."""

    def find(drift, states, measure, pairs="matched", run="model"):
        wanted = (run, states, measure, pairs)
        return next(each for each in drift.curves if (each.run, each.states, each.measure, each.pairs) == wanted)

    return find


@pytest.fixture(scope="session")
def figure():
    """Mean of a figure of the behaviour."""

    def find(drift, name, run="model"):
        return next(each.estimate.mean[0] for each in drift.behavior if (each.run, each.name) == (run, name))

    return find
