"""Two tiny Speech LLMs, and questions for them."""

import numpy as np
import pytest
from scoring_questions import RIGHT

from tars_rewards import Question


@pytest.fixture(scope="session", params=["qwen2_audio", "qwen2_5_omni"])
def speech_model(request, tiny):
    from tars_rewards.speech.model import SpeechModel

    return SpeechModel.load(tiny / request.param, device="cpu")


@pytest.fixture
def questions(clips):
    def make(number, *, prompt="What is 2 plus 2?"):
        return Question.from_row(
            {
                "id": f"q{number}",
                "prompt": prompt,
                "audio": str(clips[number % len(clips)]),
                "answer": "4",
                "completions": {
                    "speech": [RIGHT, "four", f"it is {number}, and more words follow"][: 2 + number % 2],
                    "text": [RIGHT, {"text": "It is", "truncated": True}],
                },
            }
        )

    return [make(number) for number in range(5)]


class LetterEmbedder:
    """Counts letters: real vectors that differ between texts, without a model."""

    max_tokens = float("inf")
    calls = 0

    def encode(self, texts):
        self.calls += 1
        return np.array([[1.0 + text.count(chr(code)) for code in range(97, 123)] for text in texts], np.float32)


@pytest.fixture
def embedder():
    return LetterEmbedder()
