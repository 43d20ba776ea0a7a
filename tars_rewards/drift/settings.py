"""How drift is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError
from tars_rewards.scoring.sampling import Sampling

Forced = Literal["text", "speech", "reference"]
REFERENCE = "reference"
"""Under this name a question's completions hold the one that is forced with `forced="reference"`."""


def _greedy() -> Sampling:
    return Sampling(n=1, temperature=0.0)


@dataclass(frozen=True)
class DriftSettings:
    """How drift is measured.

    Raises:
        ConfigError: A value is out of range.
    """

    forced: Forced = "text"
    """Whose completion is fed to the model after both prompts: its own first one after the written or the spoken prompt,
    or the first one that the question has as "reference"."""
    shared: bool = True
    """Where two models are compared, both get the completions of the one they are compared against, so that they differ
    in nothing else; False: each gets its own."""
    sampling: Sampling | None = field(default_factory=_greedy)
    """How the model's own completions are made; None: they are those that the questions bring."""
    centred: bool = True
    """Measure the centred cosine token by token, which takes a second pass over the forced completions."""
    bucket_tokens: int = 32
    """Tokens of a completion that are one place along it."""
    resamples: int = 2000
    """Of the bootstrap."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""
    seed: int = 0
    """Of the mismatched pairs and of the bootstrap."""
    config: TARSConfig = field(default_factory=TARSConfig)
    """Names the modalities, the answer extractor and the embedder (`strip_tags`, its cache); with `beta` 0 nothing is
    embedded. The other settings of the reward play no part."""

    def __post_init__(self) -> None:
        if self.forced not in get_args(Forced):
            raise ConfigError(f"forced is {self.forced!r}; expected one of {', '.join(get_args(Forced))}")
        for name, least in (("bucket_tokens", 1), ("resamples", 100)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} is {value!r}; expected an integer of at least {least}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed is {self.seed!r}; expected an integer of at least 0")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence!r}; expected a number in (0, 1)")
