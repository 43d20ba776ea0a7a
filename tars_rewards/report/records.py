"""What a report is about, as plain values. Shares are in [0, 1]; what does not exist is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tars_rewards.evaluation.records import EvaluationRow, RunInfo

SPEECH, TEXT = "speech", "text"


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None  #: questions behind it


@dataclass(frozen=True)
class Category:
    """Questions of one kind."""

    name: str
    questions: int
    accuracy: Mapping[str, Estimate]  #: by modality
    gap: Estimate | None  #: text less speech


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An evaluation run."""

    label: str
    info: RunInfo
    questions: int
    level: float  #: of the intervals, such as 0.95
    accuracy: Mapping[str, Estimate]  #: by modality
    gap: Estimate | None  #: text less speech
    own_ratio: Estimate | None  #: speech / text
    recovery_rate: Estimate | None  #: MRR, in percent
    denominator: float | None
    denominator_name: str | None  #: what the recovery rate is measured against
    categories: Sequence[Category]
    conduct: Mapping[str, Mapping[str, Any]]  #: by modality: rows, unparsed, truncated, mean_tokens, tokens_per_second
    resampling: Mapping[str, Any]
    rows: Sequence[EvaluationRow]
    left_out: int  #: questions without results, for they were bad
    recorded: Mapping[str, Any]  #: all of its run.json
    root: Path  #: what paths of clips are relative to


@dataclass(frozen=True, eq=False)
class Curve:
    """Estimates along something."""

    run: str  #: "model", "against" or "difference"
    states: str  #: "forced" or "rollouts"
    measure: str  #: "cosine", "centred" or "cka"
    pairs: str  #: "matched", "mismatched" or "margin"
    points: Sequence[Estimate]
    starts: Sequence[float]  #: where each point is: a layer from 0, a token, a tenth
    places: str = "layers"  #: or "tokens", "tenths"
    overall: Estimate | None = None  #: mean over layers


@dataclass(frozen=True, eq=False)
class DriftRun:
    """A drift directory."""

    label: str
    info: Mapping[str, Any]  #: its drift.json without the curves
    models: Mapping[str, str]
    questions: int
    curves: Sequence[Curve]
    positions: Sequence[Curve]
    trends: Sequence[Curve]
    behavior: Mapping[str, Mapping[str, Estimate]]  #: by figure and run


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A training run."""

    label: str
    steps: Sequence[tuple[int, Mapping[str, float]]]  #: metrics by step, in order
    rollouts: Sequence[Mapping[str, Any]]  #: those that were kept
    info: Mapping[str, Any]
    root: Path


@dataclass(frozen=True)
class PairedDifference:
    """An arm less the first arm."""

    arm: str
    quantity: str  #: a modality, for its accuracy; or "gap"
    estimate: Estimate  #: with the interval that belongs to `p`
    test: str  #: what `p` is of
    p: float
    p_holm: float  #: corrected for the number of arms
    only_first: int | None  #: questions that only the first arm got right
    only_arm: int | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs against each other."""

    label: str
    questions: int
    first: str  #: the arm that the others are compared with
    level: float  #: of the intervals
    arms: Mapping[str, Mapping[str, Any]]
    differences: Sequence[PairedDifference]
    info: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything a report is made from."""

    evaluations: list[Evaluation] = field(default_factory=list)
    drifts: list[DriftRun] = field(default_factory=list)
    trainings: list[TrainingRun] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
