"""The questions of a file: read once to check them all, and once more to work on them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tars_rewards.errors import InputError
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sink import BadRows
from tars_rewards.scoring.tables import Row, is_parquet, read_rows
from tars_rewards.scoring.tasks import Task

_KEPT_PROBLEMS = 1000  # of a file in which everything is wrong


class Item(NamedTuple):
    """A good row and its question."""

    where: str  #: "line 3" or "row 3"
    row: Row
    question: Question


class QuestionFile:
    """A file of questions, for one task.

    Args:
        name: The file, or "-": how messages name it, and where relative paths of clips start.
        path: The file to be read.
        parquet: Whether it is Parquet; else JSONL.
        task: What the questions are for.
    """

    def __init__(self, name: str, path: str, *, parquet: bool, task: Task[Any]) -> None:
        self._name = name
        self._path = path
        self._parquet = parquet
        self._root = Path(".") if name == "-" else Path(name).parent
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
        for row in read_rows(self._path, parquet=self._parquet):
            _, complaints = self._read(row)
            if not complaints:
                continue
            found += len(complaints)
            room = _KEPT_PROBLEMS - len(problems)
            problems += [f"{self._where(row)}: {complaint}" for complaint in complaints[:room]]
            if bad is not None:
                bad.add(self._where(row), row.value, complaints)
        if found and bad is None:
            raise InputError(f"{self.name}: {found} problem{'s' * (found > 1)}; nothing was done:", problems)
        if not self._first and not found:
            raise InputError(f"{self.name}: expected at least one question, got none")
        return self._first.keys()

    def items(self) -> Iterator[Item]:
        """The good rows with their questions."""
        for row in read_rows(self._path, parquet=self._parquet):
            question, complaints = self._read(row)
            if question is not None and not complaints:
                yield Item(self._where(row), row, question)

    @property
    def name(self) -> str:
        """How messages name the file."""
        return "standard input" if self._name == "-" else self._name

    def _where(self, row: Row) -> str:
        return f"{'row' if self._parquet else 'line'} {row.number}"

    def _read(self, row: Row) -> tuple[Question | None, list[str]]:
        if row.problem is not None:
            return None, [row.problem]
        try:
            question = Question.from_row(row.value, root=self._root)
            self._task.check(question)
        except InputError as error:
            return None, list(error.problems)
        first = self._first.setdefault(question.id, row.number)
        if first != row.number:
            before = self._where(Row(first, None))
            return None, [f"field 'id': expected each id once, got {question.id!r}, which {before} has"]
        return question, []


@contextmanager
def open_questions(source: str | os.PathLike[str], task: Task[Any]) -> Iterator[QuestionFile]:
    """The questions of a file; standard input is copied to the disk first, since it can be read only once.

    Args:
        source: JSONL or Parquet, or "-": JSONL from standard input.
        task: What the questions are for.

    Raises:
        InputError: The file is neither JSONL nor Parquet by its name.
    """
    name = os.fspath(source)
    if name != "-":
        yield QuestionFile(name, name, parquet=is_parquet(name), task=task)
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield QuestionFile(name, copy.name, parquet=False, task=task)
