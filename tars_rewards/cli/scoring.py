"""`tars-rewards score` and `tars-rewards sample`: thin over `Scorer.score_file` and `Scorer.sample_file`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tars_rewards.cli.messages import say
from tars_rewards.config import TARSConfig
from tars_rewards.scoring.files import check_paths

if TYPE_CHECKING:
    from tars_rewards.cli.command import ModelCommand
    from tars_rewards.cli.commands import Sample, Score
    from tars_rewards.scoring.files import FileReport
    from tars_rewards.scoring.scorer import Scorer


def score(command: Score) -> int:
    """Score a file and say what came of it.

    Raises:
        TARSError: As `Scorer.score_file`.
    """
    check_paths(command.source, command.out, overwrite=command.overwrite)
    scorer = make_scorer(command, command.model, command.reward, progress=not command.no_progress)
    report = scorer.score_file(
        command.source,
        command.out,
        skip_bad=command.skip_bad,
        overwrite=command.overwrite,
        progress=not command.no_progress,
    )
    say(closing_line("scored", report))
    return 0


def sample(command: Sample) -> int:
    """Sample for a file and say what came of it.

    Raises:
        TARSError: As `Scorer.sample_file`.
    """
    config = TARSConfig(target_modality=command.target_modality, anchor_modality=command.anchor_modality)
    check_paths(command.source, command.out, overwrite=command.overwrite)
    scorer = make_scorer(command, command.model, config, progress=not command.no_progress)
    report = scorer.sample_file(
        command.source,
        command.out,
        **dataclasses.asdict(command.sampling),
        skip_bad=command.skip_bad,
        overwrite=command.overwrite,
        progress=not command.no_progress,
    )
    say(closing_line("sampled for", report))
    return 0


def make_scorer(command: ModelCommand, model: str | None, config: TARSConfig, *, progress: bool) -> Scorer:
    """The scorer that a command's flags describe.

    Args:
        command: Has the flags.
        model: The model, if any.
        config: Of the reward.
        progress: Whether to show how far the loading of the weights is.
    """
    from tars_rewards.scoring.scorer import Scorer

    if not progress and model is not None:
        from transformers.utils import logging

        logging.disable_progress_bar()
    return Scorer(
        model,
        config=config,
        device=command.device,
        dtype=command.dtype,
        system=command.system,
        instruction=command.instruction,
        token_budget=command.token_budget,
    )


def closing_line(done: str, report: FileReport) -> str:
    """What came of a file, in one line."""
    new = report.questions - report.resumed
    out = "standard output" if report.out == "-" else report.out
    parts = [f"{done} {_counted(report.questions, 'question')}, {_counted(report.rows, 'row')} in {out}"]
    if report.resumed:
        parts.append(f"{report.resumed} of them by an earlier run")
    if report.bad:
        parts.append(f"left out {_counted(report.bad, 'bad row')}, which {report.bad_file} has with the reasons")
    parts.append(f"{report.seconds:.1f} s, {new / max(report.seconds, 1e-9):.3g} questions/s")
    if report.mean_reward:
        means = ", ".join(f"{modality} {mean:.3f}" for modality, mean in report.mean_reward.items())
        parts.append(f"mean reward: {means}")
    return "; ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
