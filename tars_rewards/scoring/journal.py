"""What a run has done so far, so that it can go on where it was stopped.

A file of JSON lines beside the output: first what the run is, then one line for each question that is done. A question is
done when its line is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two runs apart
    fcntl = None  # type: ignore[assignment]

import xxhash

from tars_rewards.errors import InputError
from tars_rewards.scoring.tables import dump

_FORMAT = 1


class Journal:
    """The journal of one output.

    Args:
        path: The file; begun if it does not exist.
        settings: What the results depend on, as JSON has it.
        anew: Drop what is in it.

    Raises:
        InputError: The file is the journal of a run with other settings (they are named), or none at all; or another run is
            writing it.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, anew: bool = False) -> None:
        self.path = path
        self._done: dict[str, int] = {}
        header = {"format": _FORMAT, "settings": json.loads(dump(settings))}
        self._file = _opened(path)
        try:
            if anew:
                self._file.truncate(0)
            if path.stat().st_size:
                self._continue(header)
            if not path.stat().st_size:
                self._write(header)
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> Set[str]:
        """Ids of the questions that are done."""
        return self._done.keys()

    def has(self, identity: str, row: Any) -> bool:
        """Whether a question is done.

        Raises:
            InputError: A question of this id is done, but it was another one.
        """
        done = self._done.get(identity)
        if done is not None and done != fingerprint(row):
            raise InputError(
                f"question {identity!r} has changed since its results were written to {self.path}; give its input back, "
                "choose another output, or overwrite"
            )
        return done is not None

    def add(self, identity: str, row: Any, results: Sequence[Mapping[str, Any]]) -> None:
        """Write down that a question is done, with its results."""
        self._done[identity] = fingerprint(row)
        self._write({"id": identity, "input": self._done[identity], "rows": list(results)})

    def results(self) -> Iterator[dict[str, Any]]:
        """All results so far, in the order in which they were added."""
        with open(self.path, encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                yield from json.loads(line)["rows"]

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(dump(entry) + "\n")
        self._file.flush()

    def _continue(self, header: Mapping[str, Any]) -> None:
        whole = 0
        differing: list[str] = []
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines):
                if not line.endswith(b"\n"):
                    break  # the process ended while it was written
                try:
                    entry = json.loads(line)
                    if number:
                        self._done[entry["id"]] = entry["input"]
                    else:
                        differing = _differences_of_headers(entry, header)
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(
                        f"{self.path}, line {number + 1}: expected the journal of an unfinished run, got {line[:60]!r}; move it "
                        "away, or overwrite"
                    ) from error
                whole += len(line)
        if differing and self._done:
            raise InputError(
                f"{self.path} is of an unfinished run with other settings; set them as they were, choose another output, or "
                "overwrite:",
                differing,
            )
        os.truncate(self.path, 0 if differing else whole)  # of a run that has done nothing, nothing is lost


def _differences_of_headers(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    before, now = dict(found["settings"]), dict(expected["settings"])
    if found["format"] != _FORMAT:
        before["format of the journal"], now["format of the journal"] = found["format"], _FORMAT
    return differences(before, now)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One sentence for each setting that differs between two runs."""
    return [
        f"{name}: {before.get(name)!r} then, {now.get(name)!r} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _opened(path: Path) -> TextIO:
    """The file, opened to add to it, and locked until it is closed, also by the end of the process."""
    while True:
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by Journal.close()
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
            file.close()  # of a run that has just become complete, and taken its journal away
        except BlockingIOError as error:
            file.close()
            raise InputError(
                f"{path} is being written by another run; wait for it, end it, or choose another output"
            ) from error


def fingerprint(row: Any) -> int:
    """Hash of a question's input row."""
    return xxhash.xxh3_64_intdigest(json.dumps(row, sort_keys=True, default=repr).encode())
