"""The questions of a file: read once to check them all, and once more to work on them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tars_rewards.errors import InputError
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sink import BadRows
from tars_rewards.scoring.tables import Row, is_parquet, read_rows
from tars_rewards.scoring.tasks import Task

_KEPT_PROBLEMS = 1000  # of a file in which everything is wrong


class Item(NamedTuple):
    """A good row and its question."""

    where: str  #: such as "line 3"
    row: Row
    question: Question


class RowSource(Protocol):
    """Rows that are questions, as often as they are asked for."""

    @property
    def name(self) -> str:
        """How messages name them."""

    @property
    def root(self) -> Path:
        """Where relative paths of clips start."""

    def rows(self) -> Iterator[Row]:
        """All rows, from the first; their numbers ascend."""

    def where(self, number: int) -> str:
        """How messages name a row."""


class FileRows:
    """The rows of one file.

    Args:
        source: JSONL or Parquet.
        copy: Where its content really is, as JSONL; None: there.

    Raises:
        InputError: The file is neither JSONL nor Parquet by its name.
    """

    def __init__(self, source: str | os.PathLike[str], copy: str | None = None) -> None:
        given = os.fspath(source)
        self.name = "standard input" if given == "-" else given
        self.root = Path(".") if given == "-" else Path(given).parent
        self._path = copy or given
        self._parquet = copy is None and is_parquet(given)

    def rows(self) -> Iterator[Row]:
        """All rows, from the first."""
        return read_rows(self._path, parquet=self._parquet)

    def where(self, number: int) -> str:
        """How messages name a row."""
        return f"{'row' if self._parquet else 'line'} {number}"


class QuestionFile:
    """Questions for one task.

    Args:
        source: The rows that they are in.
        task: What the questions are for.
    """

    def __init__(self, source: RowSource, task: Task[Any]) -> None:
        self._source = source
        self._task = task
        self._first: dict[str, int] = {}  # all that is kept of a row: its id and number

    def check(self, bad: BadRows | None) -> Set[str]:
        """Look at every row.

        Args:
            bad: Where bad rows go; None: they are an error.

        Returns:
            The ids of the good rows.

        Raises:
            InputError: Rows are bad and have nowhere to go (they are named together), or there are none.
        """
        found = 0
        problems: list[str] = []
        for row in self._source.rows():
            _, complaints = self._read(row)
            if not complaints:
                continue
            found += len(complaints)
            room = _KEPT_PROBLEMS - len(problems)
            problems += [f"{self._source.where(row.number)}: {complaint}" for complaint in complaints[:room]]
            if bad is not None:
                bad.add(self._source.where(row.number), row.value, complaints)
        if found and bad is None:
            raise InputError(f"{self.name}: {found} problem{'s' * (found > 1)}; nothing was done:", problems)
        if not self._first and not found:
            raise InputError(f"{self.name}: expected at least one question, got none")
        return self._first.keys()

    def items(self) -> Iterator[Item]:
        """The good rows with their questions."""
        for row in self._source.rows():
            question, complaints = self._read(row)
            if question is not None and not complaints:
                yield Item(self._source.where(row.number), row, question)

    @property
    def name(self) -> str:
        """How messages name the questions."""
        return self._source.name

    def _read(self, row: Row) -> tuple[Question | None, list[str]]:
        if row.problem is not None:
            return None, [row.problem]
        try:
            question = Question.from_row(row.value, root=self._source.root)
            self._task.check(question)
        except InputError as error:
            return None, list(error.problems)
        first = self._first.setdefault(question.id, row.number)
        if first != row.number:
            before = self._source.where(first)
            return None, [f"field 'id': expected each id once, got {question.id!r}, which {before} has"]
        return question, []


@contextmanager
def open_questions(source: str | os.PathLike[str] | RowSource, task: Task[Any]) -> Iterator[QuestionFile]:
    """The questions of a file; standard input is copied to the disk first, since it can be read only once.

    Args:
        source: JSONL or Parquet, or "-": JSONL from standard input; or rows from elsewhere.
        task: What the questions are for.

    Raises:
        InputError: The file is neither JSONL nor Parquet by its name.
    """
    if source != "-":
        yield QuestionFile(FileRows(source) if isinstance(source, str | os.PathLike) else source, task)
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield QuestionFile(FileRows("-", copy.name), task)


def read_questions(
    source: str | os.PathLike[str], *, skip_bad: bool = False, check: Callable[[Question], None] | None = None
) -> tuple[list[Question], list[str]]:
    """All questions of a file at once.

    Args:
        source: JSONL or Parquet.
        skip_bad: Leave out bad rows.
        check: Raises InputError for a question that is bad though it can be read.

    Returns:
        The questions, and what is wrong with the rows that were left out.

    Raises:
        InputError: The file cannot be read; rows are bad (all are named) and not to be left out, or there are no others.
    """
    rows = FileRows(source)
    questions, problems = [], []
    for row in rows.rows():
        try:
            if row.problem is not None:
                raise InputError("", [row.problem])
            question = Question.from_row(row.value, root=rows.root)
            if check is not None:
                check(question)
            questions.append(question)
        except InputError as error:
            problems += [f"{rows.where(row.number)}: {problem}" for problem in error.problems]
    if not questions or (problems and not skip_bad):
        raise InputError(f"{rows.name}: {len(problems)} problems, {len(questions)} questions:", problems)
    return questions, problems
