"""Measure the drift of one model, or of one against another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from tars_rewards.drift.candidate import Candidate, bar, portable
from tars_rewards.drift.curves import Curve, Estimator, Figure, PositionCurve
from tars_rewards.drift.model_drift import ModelDrift, measure_model
from tars_rewards.drift.settings import DriftSettings
from tars_rewards.errors import ConfigError, InputError, ScoringError, TARSError
from tars_rewards.reward import TARSReward
from tars_rewards.scoring.question import Completion, Question

if TYPE_CHECKING:
    from tars_rewards.protocol import Embedder
    from tars_rewards.speech.model import SpeechModel

_LEAST = 2  # questions: a mismatched pair needs another one


@dataclass(frozen=True, eq=False)
class Drift:
    """What `measure_drift` found. Of "model" and, where there is one, "against"; "difference" is the first less the other."""

    settings: Mapping[str, Any]  #: everything that the figures depend on but the questions
    models: Mapping[str, str]  #: names by run
    measured: Mapping[str, ModelDrift]  #: question by question
    curves: list[Curve]
    positions: list[PositionCurve]
    trends: list[Curve]  #: last tenth of the forced completion less the first
    behavior: list[Figure]
    left_out: Mapping[str, str] = field(default_factory=dict)  #: questions that could not be measured, and why

    def write(self, directory: str | os.PathLike[str], *, published: str | None = None) -> None:
        """Write drift.json, layers.csv, positions.csv, questions.jsonl and plots; see `files.write_files` and `plots.write_plots`.

        Args:
            directory: Made if it is not there; files of these names are replaced.
            published: "mmsu" or "obqa": draw the paper's means on that set beside the measured ones.

        Raises:
            MissingDependencyError: matplotlib is not installed; the data files have been written.
        """
        from tars_rewards.drift.files import write_files
        from tars_rewards.drift.plots import write_plots

        write_files(self, directory)
        write_plots(self, directory, published=published)


def measure_drift(
    model: str | os.PathLike[str] | SpeechModel,
    questions: Iterable[Question | Mapping[str, Any]],
    *,
    against: str | os.PathLike[str] | SpeechModel | None = None,
    settings: DriftSettings | None = None,
    embedder: Embedder | None = None,
    system: str | None = None,
    instruction: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    token_budget: int = 16_384,
    skip_bad: bool = False,
    progress: bool = False,
) -> Drift:
    """Measure how far a model's states and words drift apart between what it hears and what it reads.

    Of every question and model `5 x layers x hidden` float32 values are kept until the model is done (7B models: 2 MB a
    question); models given by name are loaded one after the other.

    Args:
        model: Directory or hub name of a Speech LLM, or a loaded one.
        questions: At least two, each written and as a clip; right answers are not needed.
        against: The model to compare with, such as the one before training. Differences are `model` less `against`.
        settings: How to measure.
        embedder: Of the semantic consistency; None: the config's.
        system: System prompt of questions that have none of their own.
        instruction: Follows the question where it has none of its own.
        device: Where models given by name run.
        dtype: Of their weights.
        token_budget: Tokens of one forward pass; halved where they do not fit.
        skip_bad: Leave out questions that cannot be measured; they are then in `Drift.left_out`.
        progress: Show a bar on standard error.

    Raises:
        InputError: Questions cannot be used, all named; or less than two are left.
        ConfigError: The two models differ in their number of layers.
        ScoringError: See `InputError`: where a question failed in the model.
    """
    settings = DriftSettings() if settings is None else settings
    prompts = {"system": system, "instruction": instruction}
    given = {"model": model} if against is None else {"against": against, "model": model}
    candidates = {
        name: Candidate(each, settings, device=device, dtype=dtype, token_budget=token_budget, **prompts)
        for name, each in given.items()
    }
    _check_depth(candidates)
    reward = TARSReward(replace(settings.config, alpha=0.0), embedder=embedder)
    left = _distinct([Question.from_row(question) for question in questions])
    left_out: dict[str, TARSError] = {}
    while True:
        if len(left) < _LEAST:
            problems = [str(error) for error in left_out.values()]
            raise InputError(f"expected at least {_LEAST} questions that can be measured, got {len(left)}", problems)
        measured, bad = _measure(candidates, left, reward, settings, progress)
        if not bad:
            break
        if not skip_bad:
            _refuse(bad, len(left))
        left_out |= bad  # the others are measured anew: pairs and means are no longer the same
        left = [question for question in left if question.id not in left_out]
    measured = {name: measured[name] for name in ("model", "against") if name in measured}
    estimator = Estimator(settings)
    return Drift(
        settings={**asdict(settings), **prompts, "device": device, "dtype": dtype},
        models={name: candidates[name].name for name in measured},
        measured=measured,
        curves=estimator.curves(measured),
        positions=estimator.positions(measured),
        trends=estimator.trends(measured),
        behavior=estimator.figures(measured),
        left_out={name: str(error) for name, error in left_out.items()},
    )


def _measure(
    candidates: Mapping[str, Candidate],
    questions: list[Question],
    reward: TARSReward,
    settings: DriftSettings,
    progress: bool,
) -> tuple[dict[str, ModelDrift], dict[str, TARSError]]:
    """Each model on the same questions, or which of these cannot be measured."""
    measured: dict[str, ModelDrift] = {}
    first: tuple[Candidate, list[Completion]] | None = None
    for name, candidate in candidates.items():
        with candidate.loaded() as subject:
            own, bad = candidate.complete(subject, questions, label=name, progress=progress)
            if bad:
                return {}, bad
            forced = candidate.forced(questions, own)
            if first is None:
                first = candidate, forced
            elif settings.shared:
                forced = [portable(each, first[0], candidate) for each in first[1]]
            passes = 1 + settings.centred
            with bar(f"{name}: states", passes * len(own), progress) as shown:
                found = measure_model(subject, own, forced, reward, settings, shown)
        if not isinstance(found, ModelDrift):
            return {}, found
        measured[name] = found
    return measured, {}


def _refuse(bad: Mapping[str, TARSError], of: int) -> NoReturn:
    message, problems = f"{len(bad)} of {of} questions cannot be measured:", [str(error) for error in bad.values()]
    error: TARSError = InputError(message, problems)
    if not all(isinstance(each, InputError) for each in bad.values()):
        error = ScoringError(str(error))
    raise error from next(iter(bad.values()))


def _check_depth(candidates: Mapping[str, Candidate]) -> None:
    """Look at both models before an hour has passed."""
    if len(candidates) > 1:
        depths = {run: candidate.depth() for run, candidate in candidates.items()}
        if len(set(depths.values())) > 1:
            shown = " and ".join(f"{depth} ({run}: {candidates[run].name})" for run, depth in depths.items())
            raise ConfigError(
                f"expected two models with as many decoder layers, to compare them one by one, got {shown}"
            )


def _distinct(questions: list[Question]) -> list[Question]:
    twice = sorted(name for name, count in Counter(each.id for each in questions).items() if count > 1)
    if twice:
        raise InputError("questions:", [f"expected each id once, got {name!r} more than once" for name in twice])
    return questions
