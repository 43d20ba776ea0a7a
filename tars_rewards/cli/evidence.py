"""`tars-rewards evaluate`, `drift`, `compare` and `report`: thin over the functions that do the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tars_rewards.cli.messages import say
from tars_rewards.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tars_rewards.cli.evidence_commands import Compare, Drift, Evaluate, Report
    from tars_rewards.scoring.question import Question


def evaluate(command: Evaluate) -> int:
    """Evaluate and show the summary.

    Raises:
        TARSError: As `evaluation.evaluate.run`.
    """
    from tars_rewards.evaluation.evaluate import run
    from tars_rewards.evaluation.summary import summary_table

    for done in run(command.settings):
        _show(summary_table(done.summary))
        parts = [f"evaluated on {done.questions} questions in {done.out}"]
        if done.resumed:
            parts.append(f"{done.resumed} of them by an earlier run")
        if done.bad:
            parts.append(f"left out {done.bad} bad rows, which {done.bad_file} has with the reasons")
        say("; ".join([*parts, f"{done.seconds:.1f} s"]))
    return 0


def drift(command: Drift) -> int:
    """Measure drift and say where it is written.

    Raises:
        TARSError: As `drift.measure_drift`.
    """
    from tars_rewards.drift.candidate import check_question
    from tars_rewards.drift.run import measure_drift
    from tars_rewards.evaluation.records import make_directory
    from tars_rewards.scoring.source import read_questions

    settings = command.settings

    def check(question: Question) -> None:
        check_question(question, settings.config, "image" if question.audio is None and question.image else "audio")

    # Bad questions are named by their lines here, before the model is loaded; those to be left out, by their ids later.
    questions, problems = read_questions(
        command.data, skip_bad=command.skip_bad, check=None if command.skip_bad else check
    )
    make_directory(command.out)
    measured = measure_drift(
        command.model,
        questions,
        against=command.against,
        settings=settings,
        system=command.system,
        instruction=command.instruction,
        device=command.device,
        dtype=command.dtype,
        token_budget=command.token_budget,
        skip_bad=command.skip_bad,
        progress=not command.no_progress,
    )
    measured.write(command.out, published=command.published)
    for reason in [*problems, *measured.left_out.values()]:
        say(f"left out {reason}")
    say(f"drift of {len(measured.measured['model'].questions)} questions in {command.out}")
    return 0


def compare(command: Compare) -> int:
    """Compare runs and show how they differ.

    Raises:
        InputError: As `evaluation.compare.compare_runs`.
    """
    from tars_rewards.evaluation.compare import compare_runs, comparison_table

    comparison = compare_runs(command.sources, arms=command.arms or None)
    content = json.dumps(comparison.to_json(), indent=1, allow_nan=False)
    if command.out is not None:
        try:
            Path(command.out).write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{command.out} cannot be written: {error.strerror or error}") from error
    if command.format == "json":
        print(content)
    else:
        _show(comparison_table(comparison))
    return 0


def report(command: Report) -> int:
    """Write a report and say what is in it.

    Raises:
        TARSError: As `report.write_report`.
    """
    from tars_rewards.report.write import write_report

    written = write_report(command.sources, command.out, command.settings)
    left_out = sum(written.clips_left_out.values())
    clips = f"{written.clips} clips" + (f" ({left_out} left out)" if left_out else "")
    say(f"{written.page}: {written.figures} plots, also in {written.plots}; {clips}")
    return 0


def _show(table: RenderableType) -> None:
    from rich.console import Console

    Console().print(table)
