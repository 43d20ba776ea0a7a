"""What a report is made of, apart from its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from tars_rewards.errors import ConfigError


@dataclass(frozen=True)
class ReportSettings:
    """How much a report shows.

    Raises:
        ConfigError: A value is out of range.
    """

    title: str = "Speech and text: a report"
    """Heading of the page."""
    questions: int = 24
    """Questions of each set whose completions are shown side by side, shared fairly among the four outcomes (heard and
    read rightly or wrongly); 0 shows none."""
    clips: int = 16
    """Clips that are embedded in the page, at most; 0 embeds none."""
    clip_megabytes: float = 1.0
    """Size of a clip (10^6 bytes of its file) above which it is left out."""
    completion_characters: int = 4000
    """Characters of a completion above which its middle is left out."""
    published: bool = True
    """Whether the published figures of arXiv 2601.05543 are shown beside those measured, marked as published."""

    def __post_init__(self) -> None:
        for name, least in (("questions", 0), ("clips", 0), ("completion_characters", 100)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}; expected an integer of at least {least}")
        if not self.clip_megabytes > 0:
            raise ConfigError(f"clip_megabytes is {self.clip_megabytes!r}; expected a number above 0")
