"""Where results go, and bad rows."""

from __future__ import annotations

import base64
import codecs
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TextIO

from tars_rewards.errors import InputError
from tars_rewards.scoring.journal import Journal
from tars_rewards.scoring.tables import dump, is_parquet, write_rows

JOURNAL = ".partial"
"""What the name of an output's journal ends in."""

Rows = Sequence[Mapping[str, Any]]


class Sink(ABC):
    """Takes the results of question after question.

    Attributes:
        rows: Rows of results, of earlier runs too, once it is finished.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._rewards: dict[str, list[float]] = {}

    def begin(self, questions: Set[str]) -> int:
        """Take the ids of all questions; the number of those that an earlier run has done."""
        return 0

    def has(self, identity: str, row: Any) -> bool:
        """Whether an earlier run has done this question."""
        return False

    @abstractmethod
    def add(self, identity: str, row: Any, results: Rows) -> None:
        """Take a question's results."""

    def finish(self) -> None:  # noqa: B027 - standard output has nothing to finish
        """All results are there."""

    def close(self) -> None:  # noqa: B027 - nor to let go of
        """Let go of files, finished or not."""

    @property
    def mean_reward(self) -> dict[str, float]:
        """Mean total reward by modality; empty where the results are no rewards."""
        return {modality: total / count for modality, (total, count) in self._rewards.items()}

    def _count(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        if "total" in row:
            sums = self._rewards.setdefault(row["modality"], [0.0, 0])
            sums[0] += row["total"]
            sums[1] += 1


class StandardOutput(Sink):
    """Results as JSON lines, as they come."""

    def add(self, identity: str, row: Any, results: Rows) -> None:
        """Take a question's results."""
        unicode = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"  # JSON is nothing else
        for each in results:
            self._count(each)
            sys.stdout.write(dump(each, ascii_only=not unicode) + "\n")
        sys.stdout.flush()


class OutputFile(Sink):
    """A file that appears when all results are there; until then they are in a journal beside it.

    Args:
        path: JSONL or Parquet.
        settings: What the results depend on.
        overwrite: Drop what is there of earlier runs.

    Raises:
        InputError: It belongs to an interrupted run with other settings, or another run is writing it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], *, overwrite: bool) -> None:
        super().__init__()
        self._path = Path(path)
        self._parquet = is_parquet(path)
        self._journal = Journal(Path(f"{os.fspath(path)}{JOURNAL}"), settings, anew=overwrite)
        if overwrite:
            self._path.unlink(missing_ok=True)

    def begin(self, questions: Set[str]) -> int:
        """Take the ids of all questions; the number of those that an earlier run has done.

        Raises:
            InputError: An earlier run has done questions that are not among them.
        """
        if strangers := sorted(self._journal.done - questions):
            raise InputError(
                f"{self._journal.path} holds the results of {len(strangers)} questions that the input does not have, such as "
                f"{strangers[0]!r}; give the same input, choose another output, or overwrite"
            )
        return len(self._journal.done)

    def has(self, identity: str, row: Any) -> bool:
        """Whether an earlier run has done this question."""
        return self._journal.has(identity, row)

    def add(self, identity: str, row: Any, results: Rows) -> None:
        """Take a question's results."""
        self._journal.add(identity, row, results)

    def finish(self) -> None:
        """Make the journal into the output."""
        write_rows(self._path, self._counted(), parquet=self._parquet)
        self._journal.path.unlink()

    def close(self) -> None:
        """Let go of the journal, which stays if the output is not finished."""
        self._journal.close()

    def _counted(self) -> Iterator[Mapping[str, Any]]:
        for row in self._journal.results():
            self._count(row)
            yield row


class BadRows:
    """A file of the rows that are left out, with their problems; each run makes it anew when it finds one.

    Attributes:
        count: Rows in it.
    """

    def __init__(self, source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
        if source == out == "-":
            raise InputError("bad rows go to a file beside the output; name one instead of '-', or do not skip them")
        self.path = Path(bad_file(source, out))
        self.count = 0
        self._file: TextIO | None = None

    def add(self, where: str, row: Any, problems: Sequence[str]) -> None:
        """Put a row there."""
        if self._file is None:
            self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        # Whatever a bad row holds, such as dates, or numbers and letters that are none.
        self._file.write(json.dumps({"where": where, "problems": list(problems), "row": row}, default=_shown) + "\n")
        self._file.flush()
        self.count += 1

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def bad_file(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> str:
    """Where bad rows go: beside the output, or beside the source where that is standard output."""
    return os.fspath(bad_rows_of(source if out == "-" else out))


def bad_rows_of(out: str | os.PathLike[str]) -> Path:
    """Where the bad rows of an output are."""
    return Path(f"{os.fspath(out)}.bad.jsonl")


def _shown(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
