"""The commands and their flags. Light: what a command needs is imported when it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from tars_rewards.cli.command import Command, ModelCommand
from tars_rewards.cli.evidence_commands import EVIDENCE
from tars_rewards.config import TARSConfig
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.server.settings import ServerSettings


@dataclass(frozen=True, kw_only=True)
class FileCommand(ModelCommand):
    """A command that runs a model over a file of questions and writes a file."""

    out: Annotated[str, arg(metavar="FILE")]
    """Where to write: .jsonl or .parquet, or - for JSONL on standard output."""
    skip_bad: bool = False
    """Write rows that cannot be used to a side file, with the reason, and go on with the rest."""
    overwrite: bool = False
    """Begin anew where --out exists, instead of going on where an earlier run was stopped."""
    no_progress: bool = False
    """Show no progress bar."""

    @property
    def kept(self) -> str:
        """What an interruption leaves behind, and how to go on."""
        journal = Path(f"{self.out}.partial")
        if self.out == "-" or not journal.exists():
            return ""
        without = " without --overwrite" if self.overwrite else ""
        return f"what was done is kept in {journal}; the same command{without} goes on from there"


@dataclass(frozen=True, kw_only=True)
class Score(FileCommand):
    """Score the completions of a file of questions."""

    runs: ClassVar[str] = "scoring:score"

    source: Annotated[Positional[str], arg(metavar="ROLLOUTS")]
    """Questions with completions, one a row of JSONL or Parquet, - for JSONL on standard input. A row: {"id": "q1",
    "prompt": "What is 2 + 2? A) 3 B) 4", "audio": "clips/q1.wav", "answer": "B", "completions": {"speech":
    ["<think>…</think><answer>…</answer>"], "text": ["…", {"text": "…", "truncated": true}]}}. Written is a row for each
    completion: id, modality, sample_id, completion, answer, truncated, total, every term, reference, log_prob, tokens."""
    model: Annotated[str | None, tyro.conf.DisallowNone, arg(metavar="MODEL")] = None
    """Speech LLM whose hidden states are compared: a directory, or a name on the hub (tars-rewards models lists the
    families). It can be left away with --alpha 0; then there are no log-probabilities."""
    reward: OmitArgPrefixes[TARSConfig] = field(default_factory=TARSConfig)


@dataclass(frozen=True, kw_only=True)
class Sample(FileCommand):
    """Sample completions of questions, spoken and written, for tars-rewards score."""

    runs: ClassVar[str] = "scoring:sample"

    source: Annotated[Positional[str], arg(metavar="QUESTIONS")]
    """Questions, one a row of JSONL or Parquet, - for JSONL on standard input. A row: {"id": "q1", "prompt": "What is
    2 + 2? A) 3 B) 4", "audio": "clips/q1.wav", "answer": "B"}. Written are the same rows with completions,
    as tars-rewards score reads them."""
    model: Annotated[str, arg(metavar="MODEL")]
    """Speech LLM to sample from: a directory, or a name on the hub (tars-rewards models lists the families)."""
    sampling: OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    target_modality: str = TARSConfig.target_modality
    """Name of the modality in which the question is heard (or seen)."""
    anchor_modality: str = TARSConfig.anchor_modality
    """Name of the modality in which the question is read."""


@dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Show a question's completions side by side, with terms and chosen reference."""

    runs: ClassVar[str] = "inspection:inspect"

    source: Annotated[Positional[str], arg(metavar="REWARDS")]
    """What tars-rewards score wrote: .jsonl or .parquet, - for JSONL on standard input."""
    id: Annotated[tuple[str, ...], arg(metavar="ID")] = ()
    """Questions to show; none: the first ones."""
    n: int = 1
    """How many of the first questions to show where no --id is given."""
    full: bool = False
    """Show completions to their ends, instead of their first lines."""
    target_modality: str = TARSConfig.target_modality
    """Modality on the left, as --target-modality of tars-rewards score."""
    anchor_modality: str = TARSConfig.anchor_modality
    """Modality on the right, as --anchor-modality of tars-rewards score."""


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Check what is installed: versions, plugins, and what is missing for what.

    Exit code 1 if something installed is broken, or of a version that does not fit.
    """

    runs: ClassVar[str] = "doctor:doctor"

    format: Literal["table", "json"] = "table"
    """For people, or for machines."""


@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the families of Speech LLMs, and which of them transformers has."""

    runs: ClassVar[str] = "models:models"

    format: Literal["table", "json"] = "table"
    """For people, or for machines."""


@dataclass(frozen=True, kw_only=True)
class Serve(ModelCommand):
    """Serve rewards over HTTP until told to stop (Ctrl-C, SIGTERM)."""

    runs: ClassVar[str] = "serve:serve"

    model: Annotated[str | None, tyro.conf.DisallowNone, arg(metavar="MODEL")] = None
    """As --model of tars-rewards score."""
    settings: OmitArgPrefixes[ServerSettings] = field(default_factory=ServerSettings)
    reward: OmitArgPrefixes[TARSConfig] = field(default_factory=TARSConfig)


COMMANDS: dict[str, type[Command]] = {
    "score": Score,
    "sample": Sample,
    "inspect": Inspect,
    "doctor": Doctor,
    "models": Models,
    "serve": Serve,
    **EVIDENCE,
}
"""By the name that is typed."""
