"""A file of JSON lines that grows step by step, and that a resumed training goes on with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tars_rewards.errors import AdapterError, ConfigError

MOVE = "move the directory away, or choose another one by run_log"


class StepFile:
    """JSON lines, each with its ``step``, in the order of the steps.

    Args:
        path: The file; made if it does not exist. A last line that was cut off, as when a process was killed, is dropped.

    Raises:
        ConfigError: The file has a line of something else, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: dict[int, int] = {}  # of each step its first line, in bytes from the start of the file
        self._end = 0
        try:
            with open(path, "a+b") as lines:
                lines.seek(0)
                for number, line in enumerate(lines, start=1):
                    if not line.endswith(b"\n"):
                        break
                    self._take(line, number)
            os.truncate(path, self._end)
        except OSError as error:
            raise ConfigError(f"run_log: {path} cannot be used: {error.strerror or error}; {MOVE}") from error

    def _take(self, line: bytes, number: int) -> None:
        try:
            step = json.loads(line)["step"]
            if not isinstance(step, int) or step < max(self._starts, default=step):
                raise ValueError(step)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"run_log: {self.path}, line {number}: expected JSON with a step no earlier than the line before, got "
                f"{line[:60]!r}; {MOVE}"
            ) from error
        self._starts.setdefault(step, self._end)
        self._end += len(line)

    def read(self, step: int) -> list[dict[str, Any]]:
        """The lines of a step, if there are any."""
        if step not in self._starts:
            return []
        with open(self.path, "rb") as lines:
            lines.seek(self._starts[step])
            entries = map(json.loads, lines)
            return [entry for entry in entries if entry["step"] == step]

    def cut(self, step: int) -> None:
        """Drop the lines of a step and of all later ones."""
        dropped = [start for each, start in self._starts.items() if each >= step]
        if dropped:
            self._starts = {each: start for each, start in self._starts.items() if each < step}
            self._end = min(dropped)
            os.truncate(self.path, self._end)

    def append(self, step: int, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add lines of a step, which is not earlier than those that are there.

        Raises:
            AdapterError: They cannot be written, or somebody else has written to the file.
        """
        lines = b"".join(_line({**entry, "step": step}) for entry in entries)
        if not lines:
            return
        try:
            with open(self.path, "ab") as file:
                if file.tell() != self._end:
                    raise AdapterError(
                        f"step {step}: {self.path} was changed by somebody else since the last step; give each training a "
                        "directory of its own by run_log"
                    )
                file.write(lines)
        except OSError as error:
            raise AdapterError(
                f"step {step}: {self.path} cannot be written: {error.strerror or error}; make room, and resume the training from "
                "its last checkpoint"
            ) from error
        self._starts.setdefault(step, self._end)
        self._end += len(lines)


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps({name: _strict(value) for name, value in entry.items()}, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, as in a damaged id, becomes the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: such a number does not exist."""
    if isinstance(value, Mapping):
        return {name: _strict(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
