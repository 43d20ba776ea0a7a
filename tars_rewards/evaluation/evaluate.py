"""Evaluation of a model on questions that it hears and reads: the command `tars-rewards evaluate`."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from tars_rewards._version import __version__
from tars_rewards.errors import InputError
from tars_rewards.evaluation.benchmarks import open_benchmark
from tars_rewards.evaluation.conditions import Condition
from tars_rewards.evaluation.engine import TEXT, Engine
from tars_rewards.evaluation.outcomes import read_outcomes
from tars_rewards.evaluation.questions import Questions
from tars_rewards.evaluation.records import (
    RESULTS,
    RUN,
    SUMMARY,
    RunInfo,
    make_directory,
    prompts_fingerprint,
    questions_fingerprint,
    read_json,
    read_results,
    write_json,
)
from tars_rewards.evaluation.settings import EvaluationSettings
from tars_rewards.evaluation.summary import Summary, summarize, write_summary
from tars_rewards.evaluation.task import EvaluationTask, Rows
from tars_rewards.extraction import answer_extractor
from tars_rewards.scoring.files import process
from tars_rewards.scoring.journal import differences
from tars_rewards.scoring.sink import OutputFile, bad_rows_of

_log = logging.getLogger(__name__)

_VERSIONS = ("torch", "transformers", "numpy", "pyarrow", "soundfile", "soxr", "httpx", "xfinder")
_SETTINGS, _CONTENT = "settings", "content"  # entries of run.json: what an earlier run is recognised by


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation under one condition."""

    out: str  #: the run's directory
    condition: Condition
    summary: Summary
    questions: int  #: with results
    resumed: int  #: questions among them that an earlier call had done
    bad: int  #: questions that were left out
    bad_file: str | None  #: where they are, each with its problems
    seconds: float  #: of this call


def run(settings: EvaluationSettings) -> list[Evaluation]:
    """Evaluate: generate, find the answers, judge them, and summarize.

    In the run's directory there are then `results.jsonl` (one row a question, modality and sample), `run.json`,
    `summary.json` and `audio/`. After an interruption the same call goes on with what is missing: no row is lost or done
    twice. A run that is complete is only summarized again. With several conditions the written questions, which are the
    same under all of them, are answered once.

    Returns:
        One evaluation a condition, in the order of `settings.snr`.

    Raises:
        ConfigError: A setting is wrong, or the model or benchmark is out of reach.
        InputError: Questions are bad (all are named with place and field), the directory holds a run with other settings
            or on questions that have changed since, or the backbone's run cannot be used.
        ScoringError: A question failed, or the endpoint did; what is done is kept.
        ExtractionError: The answer extractor failed; what was judged before is kept.
    """
    source = Questions(open_benchmark(settings.benchmark, settings.data), settings.limit)
    if settings.backbone is not None:
        read_outcomes(settings.backbone).written()  # what is wrong with it is told before an hour has passed
    engine = _engine(settings)
    several = len(settings.conditions) > 1
    done: list[Evaluation] = []
    for condition in settings.conditions:
        directory = Path(settings.out) / condition.name if several else Path(settings.out)
        written = _written(Path(done[0].out)) if done else {}
        done.append(_evaluate(settings, condition, directory, source, engine, written))
    whole = settings.benchmark_questions
    if whole is not None and done[0].questions != whole:
        _log.warning(
            "%s has %d questions, and %d have results (%d were left out as bad): not comparable with published figures",
            settings.benchmark,
            whole,
            done[0].questions,
            done[0].bad,
        )
    return done


def _evaluate(
    settings: EvaluationSettings,
    condition: Condition,
    directory: Path,
    source: Questions,
    engine: Engine,
    written: Mapping[str, Rows],
) -> Evaluation:
    task = EvaluationTask(
        engine,
        {
            "model": settings.model,
            "benchmark": settings.benchmark,
            "limit": settings.limit,
            "system": settings.system,
            "instruction": settings.instruction,
            "extractor": settings.answer_extractor,
        },
        answer_extractor(settings.answer_extractor),
        modalities=settings.modalities,
        sampling=settings.sampling,
        condition=condition,
        directory=directory,
        clips=settings.clips,
        written=written,
    )
    make_directory(directory)
    if not settings.overwrite and _is_complete(directory, task, source):
        summary = _summarized(directory, settings)
        bad = bad_rows_of(directory / RESULTS)
        left_out = bad.read_bytes().count(b"\n") if bad.exists() else 0
        return Evaluation(
            str(directory),
            condition,
            summary,
            summary.questions,
            summary.questions,
            left_out,
            str(bad) if left_out else None,
            seconds=0.0,
        )
    report = process(
        task,
        source,
        directory / RESULTS,
        skip_bad=settings.skip_bad,
        overwrite=settings.overwrite,
        progress=settings.progress,
        output=partial(RunDirectory, run=settings, condition=condition, questions=source),
    )
    if not report.bad:
        bad_rows_of(directory / RESULTS).unlink(missing_ok=True)  # of a call that could not do what this one did
    return Evaluation(
        str(directory),
        condition,
        _summarized(directory, settings),
        report.questions,
        report.resumed,
        report.bad,
        report.bad_file,
        report.seconds,
    )


class RunDirectory(OutputFile):
    """The results of a run, which appear together with what the run was.

    Args:
        path: `results.jsonl` in the run's directory.
        settings: What the results depend on.
        overwrite: Drop what is there of an earlier run.
        run: Settings of the evaluation.
        condition: How questions were heard.
        questions: What it was on.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        overwrite: bool,
        run: EvaluationSettings,
        condition: Condition,
        questions: Questions,
    ) -> None:
        super().__init__(path, settings, overwrite=overwrite)
        self._directory = path.parent
        self._settings = settings
        self._run = run
        self._condition = condition
        self._questions = questions
        if overwrite:
            for name in (RUN, SUMMARY):
                (self._directory / name).unlink(missing_ok=True)

    def finish(self) -> None:
        """Write `run.json`, then make the journal into the results: who finds results finds what they are of."""
        questions = {row["id"]: row["answer"] for row in self._journal.results()}
        info = RunInfo(
            model=self._run.model,
            engine=self._settings["engine"],
            benchmark=self._run.benchmark,
            questions=questions_fingerprint(questions.items()),
            prompts=prompts_fingerprint(
                self._run.system or None, self._run.instruction or None, own=self._questions.prompts()
            ),
            extractor=self._run.answer_extractor,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            tars_rewards=__version__,
            sampling=asdict(self._run.sampling),
            condition=self._condition.to_json(),
            versions=dict(_installed()),
        )
        write_json(
            self._directory / RUN,
            {**info.to_json(), _SETTINGS: dict(self._settings), _CONTENT: self._questions.content()},
        )
        super().finish()


def _engine(settings: EvaluationSettings) -> Engine:
    asking: dict[str, Any] = {"system": settings.system or None, "instruction": settings.instruction or None}
    if settings.url is not None:
        from tars_rewards.evaluation.engine_endpoint import EndpointEngine

        return EndpointEngine(
            settings.url,
            settings.model,
            api_key_var=settings.api_key_var,
            concurrency=settings.concurrency,
            deadline=settings.deadline,
            **asking,
        )
    from tars_rewards.evaluation.engine_huggingface import HuggingFaceEngine

    return HuggingFaceEngine(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        token_budget=settings.token_budget,
        **asking,
    )


def _is_complete(directory: Path, task: EvaluationTask, source: Questions) -> bool:
    """Whether an earlier run has all results.

    Raises:
        InputError: It was another run, or on questions that have changed since.
    """
    if not (directory / RESULTS).exists():
        return False
    run = read_json(directory / RUN)
    before = run.get(_SETTINGS) if isinstance(run, Mapping) else None
    remedy = "choose another directory, or overwrite"
    if not isinstance(before, Mapping):
        raise InputError(f"{directory / RUN}: expected the settings of a run of this command, got none; {remedy}")
    if problems := differences(before, task.settings()):
        raise InputError(f"{directory} holds a run with other settings; {remedy}:", problems)
    if run.get(_CONTENT) != source.content():
        raise InputError(f"{source.name} has changed since {directory} was evaluated on it; {remedy}, or give it back")
    return True


def _summarized(directory: Path, settings: EvaluationSettings) -> Summary:
    summary = summarize(directory, backbone=settings.backbone)
    write_summary(directory, summary)
    return summary


def _written(directory: Path) -> dict[str, Rows]:
    """Rows of the written questions of a run, by question."""
    rows: dict[str, Rows] = defaultdict(list)
    for row in read_results(directory):
        if row.modality == TEXT:
            rows[row.id].append(asdict(row))
    return dict(rows)


def _installed() -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
