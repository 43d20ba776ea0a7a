"""How completions are sampled."""

from __future__ import annotations

from dataclasses import dataclass

from tars_rewards.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Raises:
        ConfigError: A value is out of range.
    """

    n: int = 4
    """Completions of a question in each modality, at least 1."""
    temperature: float = 1.0
    """0 takes the likeliest token; then all `n` are the same."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability, in (0, 1]."""
    max_new_tokens: int = 1024
    """Longest completion in tokens; one that is cut off there is marked as truncated."""
    seed: int = 0
    """The same seed gives the same completions, however the questions are batched, up to rounding."""

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("max_new_tokens", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} is {value!r}; expected an integer of at least {least}")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature!r}; expected a finite number of at least 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p!r}; expected a number in (0, 1]")
