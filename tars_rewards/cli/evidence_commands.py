"""The commands that measure and show: evaluation, drift, comparison, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from tars_rewards.cli.command import Command, ModelCommand
from tars_rewards.config import TARSConfig
from tars_rewards.drift.settings import DriftSettings, Forced
from tars_rewards.evaluation.settings import EvaluationSettings
from tars_rewards.report.settings import ReportSettings
from tars_rewards.scoring.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Ask a benchmark's questions, spoken and written, and measure the gap.

    Written is a directory with results.jsonl, run.json and summary.json.
    """

    runs: ClassVar[str] = "evidence:evaluate"

    settings: OmitArgPrefixes[EvaluationSettings]

    @property
    def kept(self) -> str:
        """What an interruption leaves behind, and how to go on."""
        return f"what was done is kept in {self.settings.out}; the same command goes on from there"


@dataclass(frozen=True, kw_only=True)
class Drift(ModelCommand):
    """Measure how states and words differ between what is heard and read.

    Written is a directory with drift.json, layers.csv, positions.csv and plots.
    """

    runs: ClassVar[str] = "evidence:drift"

    model: Annotated[str, arg(metavar="MODEL")]
    """Speech LLM: a directory, or a name on the hub."""
    data: Annotated[str, arg(metavar="FILE")]
    """Questions with clips, JSONL or Parquet, as tars-rewards sample reads them."""
    out: Annotated[str, arg(metavar="DIRECTORY")]
    """Where to write; made if need be."""
    against: Annotated[str | None, arg(metavar="MODEL")] = None
    """The model to compare with, such as the one before training: differences with their intervals are measured too."""
    skip_bad: bool = False
    """Leave out questions that cannot be measured, and name them at the end."""
    published: Literal["mmsu", "obqa"] | None = None
    """Draw the paper's published layer means on that benchmark beside those measured."""
    no_progress: bool = False
    """Show no progress bar."""
    forced: Forced = DriftSettings.forced
    """Whose completion is fed to the model after both prompts: its own first one after the written or the spoken prompt, or
    the first one that a question has as "reference"."""
    own: bool = False
    """Of two models each gets its own completions, instead of both those of the one that is compared against."""
    given: bool = False
    """Take the completions that the questions bring, instead of sampling."""
    n: int = 1
    """Completions that are sampled of a question in each modality."""
    temperature: float = 0.0
    """Of sampling; 0 takes the likeliest token."""
    max_new_tokens: int = Sampling.max_new_tokens
    """Where a completion is cut off, in tokens."""
    one_pass: bool = False
    """Leave out the centred cosine token by token, which takes a second pass."""
    bucket_tokens: int = DriftSettings.bucket_tokens
    """Tokens of a completion that are one place along it."""
    resamples: int = DriftSettings.resamples
    """Resamples that the intervals are made of."""
    seed: int = DriftSettings.seed
    """Of sampling, of the mismatched pairs and of the bootstrap."""
    answer_extractor: str = TARSConfig.answer_extractor
    """Who finds the answers that are to agree; as of tars-rewards score."""
    embedder: str = TARSConfig.embedder
    """Embedder of the semantic consistency, a name or directory; as of tars-rewards score."""
    embedder_url: Annotated[str | None, tyro.conf.DisallowNone] = TARSConfig.embedder_url
    """An endpoint that runs the embedder; as of tars-rewards score."""
    no_embedder: bool = False
    """Leave the semantic consistency of completions out."""

    @property
    def settings(self) -> DriftSettings:
        """How drift is measured.

        Raises:
            ConfigError: A setting is out of range.
        """
        sampling = Sampling(self.n, self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed)
        config = TARSConfig(
            beta=0.0 if self.no_embedder else 1.0,
            answer_extractor=self.answer_extractor,
            embedder=self.embedder,
            embedder_url=self.embedder_url,
        )
        return DriftSettings(
            forced=self.forced,
            shared=not self.own,
            sampling=None if self.given else sampling,
            centred=not self.one_pass,
            bucket_tokens=self.bucket_tokens,
            resamples=self.resamples,
            seed=self.seed,
            config=config,
        )


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare evaluations on the same questions: differences, intervals, tests."""

    runs: ClassVar[str] = "evidence:compare"

    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN ...]")]
    """Directories of tars-rewards evaluate; the others are compared with the first."""
    arms: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """The arm of each run, in the same order; runs of one arm (training seeds) share its name. None: each is its own."""
    out: Annotated[str | None, tyro.conf.DisallowNone, arg(metavar="FILE")] = None
    """Write the comparison to this JSON file too, for tars-rewards report."""
    format: Literal["table", "json"] = "table"
    """For people, or for machines."""


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write one HTML page about evaluations, drift, comparisons and training."""

    runs: ClassVar[str] = "evidence:report"

    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN ...]")]
    """Directories of tars-rewards evaluate and drift and of training runs, files of tars-rewards compare --out, in any
    mixture; before training first."""
    out: Annotated[str, arg(metavar="FILE")]
    """The page, such as report.html. Its plots (PNG) and their data (CSV) go to report_files beside it."""
    settings: OmitArgPrefixes[ReportSettings] = field(default_factory=ReportSettings)


EVIDENCE: dict[str, type[Command]] = {"evaluate": Evaluate, "drift": Drift, "compare": Compare, "report": Report}
"""By the name that is typed."""
