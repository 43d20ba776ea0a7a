"""Whole files of questions: what is bad is told before the work begins, what is done is never lost."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from tars_rewards.errors import InputError, ScoringError, TARSError
from tars_rewards.scoring.sink import JOURNAL, BadRows, OutputFile, Sink, StandardOutput, bad_file
from tars_rewards.scoring.source import Item, QuestionFile, RowSource, open_questions
from tars_rewards.scoring.tables import ASIDE, is_parquet
from tars_rewards.scoring.tasks import Task
from tars_rewards.scoring.work import paced


@dataclass(frozen=True)
class FileReport:
    """What came of a file."""

    questions: int  #: with results
    rows: int  #: of results
    bad: int  #: questions that were left out
    resumed: int  #: questions among those with results that an earlier run had done
    seconds: float  #: of this run
    out: str
    bad_file: str | None  #: where the bad rows are, each with its problems; None if there are none
    mean_reward: Mapping[str, float] = field(default_factory=dict)  #: by modality, where the results are rewards


def check_paths(
    source: str | os.PathLike[str] | RowSource, out: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Say what `process` would say of the two paths: for callers that have a model to load before.

    Raises:
        InputError: The source does not exist, or a name does not say whether it is JSONL or Parquet; the output exists and
            is not to be overwritten, its directory does not exist, or it or a file beside it would take the source's place.
    """
    if isinstance(source, str | os.PathLike) and source != "-":
        is_parquet(source)
        if not os.path.exists(source):
            raise InputError(f"{os.fspath(source)} cannot be read: there is no such file")
    if out != "-":
        is_parquet(out)
        if not overwrite and os.path.exists(out):
            raise InputError(f"{os.fspath(out)} exists; choose another output, or overwrite it")
        directory = os.path.dirname(os.fspath(out)) or "."
        if not os.path.isdir(directory):
            raise InputError(f"{os.fspath(out)}: expected an existing directory, {directory} is none")
    if isinstance(source, str | os.PathLike):
        _check_apart(source, out)


def _check_apart(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    if source == "-":
        return
    written = [bad_file(source, out)]
    if out != "-":
        written += [f"{os.fspath(out)}{suffix}" for suffix in ("", JOURNAL, ASIDE)]
    for path in written:
        if os.path.exists(path) and os.path.samefile(path, source):
            raise InputError(f"{os.fspath(source)} would be lost: this run writes to {path}; choose another output")


def process(
    task: Task[Any],
    source: str | os.PathLike[str] | RowSource,
    out: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    output: Callable[..., Sink] = OutputFile,
) -> FileReport:
    """Score or sample every question of a file.

    The file is read twice: first to check every row, then to do the work, so that bad rows are known before an hour has
    passed. Results are added to `OUT.partial` question by question; when all are there they become the output. After an
    interruption the same call goes on with what is missing. Standard output takes the results as they come, and cannot be
    continued.

    Args:
        task: What to do with the questions.
        source: JSONL or Parquet, or "-": JSONL from standard input; or rows from elsewhere. Relative paths of clips start
            from the file's directory.
        out: JSONL or Parquet, or "-": JSONL to standard output.
        skip_bad: Write bad rows to `OUT.bad.jsonl` and go on without them.
        overwrite: Drop an output that exists, and what an interrupted run has left.
        progress: Show a bar with rate and time left on standard error.
        output: Makes the sink of an `out` other than "-"; called as `OutputFile` is.

    Raises:
        InputError: The source cannot be read, or rows are bad (all are named with line and field) and not to be skipped;
            the output exists, or belongs to an interrupted run with other settings.
        ScoringError: A question failed, and bad ones are not to be skipped. The results of the others so far are kept.
    """
    begin = time.monotonic()
    check_paths(source, out, overwrite=overwrite)
    with ExitStack() as stack:
        questions = stack.enter_context(open_questions(source, task))
        bad = BadRows(source if isinstance(source, str | os.PathLike) else questions.name, out) if skip_bad else None
        if bad is not None:
            stack.callback(bad.close)
        good = questions.check(bad)
        sink = StandardOutput() if out == "-" else output(out, task.settings(), overwrite=overwrite)
        stack.callback(sink.close)
        left_out = 0 if bad is None else bad.count
        resumed = sink.begin(good)
        with tqdm(total=len(good), initial=resumed, unit="question", disable=not progress, file=sys.stderr) as bar:
            _work(task, questions, sink, bad, bar)
        sink.finish()
        found = 0 if bad is None else bad.count
        return FileReport(
            questions=len(good) - (found - left_out),
            rows=sink.rows,
            bad=found,
            resumed=resumed,
            seconds=time.monotonic() - begin,
            out=os.fspath(out),
            bad_file=os.fspath(bad.path) if bad is not None and found else None,
            mean_reward=sink.mean_reward,
        )


def _work(task: Task[Any], questions: QuestionFile, sink: Sink, bad: BadRows | None, bar: Any) -> None:
    """Do what is not done yet."""
    for todo in paced(item for item in questions.items() if not sink.has(item.question.id, item.row.value)):
        failed: list[tuple[Item, TARSError]] = []
        for item, result in zip(todo, task.run([item.question for item in todo]), strict=True):
            if not isinstance(result, TARSError):
                sink.add(item.question.id, item.row.value, task.rows(result))
            elif bad is not None:
                bad.add(item.where, item.row.value, [str(result)])
            else:
                failed.append((item, result))
            bar.update()
        if failed:
            problems = [f"{item.where}: {error}" for item, error in failed]
            kind = InputError if all(isinstance(error, InputError) for _, error in failed) else ScoringError
            raise kind(f"{questions.name}, " + "\n".join(problems)) from failed[0][1]
