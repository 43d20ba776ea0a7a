"""What generates completions: a Hugging Face model in this process, or an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tars_rewards.errors import TARSError
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sampling import Sampling

SPEECH, TEXT = "speech", "text"


class Generated(NamedTuple):
    """A completion as an engine gives it."""

    text: str
    truncated: bool = False  #: it stopped at the length limit
    tokens: int | None = None  #: of the completion; None where the engine does not tell


Completions = Mapping[str, Sequence[Generated]]
"""Completions by modality."""


class Engine(Protocol):
    """Generates completions of questions."""

    def settings(self) -> dict[str, Any]:
        """What its completions depend on, as JSON has it; nothing secret."""

    def complete(
        self, questions: Sequence[Question], modalities: Sequence[str], sampling: Sampling
    ) -> list[Completions | TARSError]:
        """Complete some questions at once.

        Args:
            questions: The questions, their clips as they are to be heard.
            modalities: Which of "speech" and "text".
            sampling: How, and how many completions each.

        Returns:
            For each question its completions, or the error that prevented them and concerns that question alone.

        Raises:
            TARSError: Something is wrong that concerns all questions.
        """
