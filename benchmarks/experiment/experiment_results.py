"""The committed results: every run of the experiment, in one JSON file.

A run is a mapping ``{"base", "arm", "seed", "steps", "machine", "settings", "seconds", "log", "checkpoints"}``; what is in
it is said in README.md.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).resolve().parent / "results.json"
DIGITS = 5
Run = dict[str, Any]


def load(path: Path = PATH) -> list[Run]:
    """All runs, in the order of base, arm, steps, settings and seed; none where there is no file."""
    if not path.exists():
        return []
    runs: list[Run] = json.loads(path.read_text())["runs"]
    return runs


def add(run: Mapping[str, Any], path: Path = PATH) -> None:
    """Put a run into the file, in place of one with the same identity; several processes may do so at a time."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs = {identity(each): each for each in load(path)}
        runs[identity(run)] = dict(run)
        made = path.with_suffix(".new")
        made.write_text(formatted([runs[key] for key in sorted(runs)]))
        os.replace(made, path)


def find(runs: Iterable[Run], wanted: Mapping[str, Any]) -> Run | None:
    """The run with the same identity, if there is one."""
    return next((run for run in runs if identity(run) == identity(wanted)), None)


def identity(run: Mapping[str, Any]) -> tuple[str, str, int, tuple[str, ...], int]:
    """What tells runs apart."""
    return run["base"], run["arm"], int(run["steps"]), tuple(run["settings"]), int(run["seed"])


def formatted(runs: Iterable[Mapping[str, Any]]) -> str:
    """The file: a line for every metric and checkpoint, so that a run that is added leaves all other lines as they are."""
    return '{"runs": [\n' + ",\n".join(_lines(run) for run in runs) + "\n]}\n"


def _lines(run: Mapping[str, Any]) -> str:
    parts = []
    for name, value in run.items():
        if name == "log":
            inner = ",\n".join(f"   {_compact(metric)}: {_compact(values)}" for metric, values in value.items())
            parts.append(f'  "log": {{\n{inner}\n  }}')
        elif name == "checkpoints":
            inner = ",\n".join(f"   {_compact(checkpoint)}" for checkpoint in value)
            parts.append(f'  "checkpoints": [\n{inner}\n  ]')
        else:
            parts.append(f"  {_compact(name)}: {_compact(value)}")
    return " {\n" + ",\n".join(parts) + "\n }"


def _compact(value: object) -> str:
    return json.dumps(_short(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _short(value: object) -> object:
    """The same with few digits, so that the file stays small; an accuracy over 2,000 questions has no more."""
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def write_outcomes(right: Sequence[bool]) -> str:
    """Outcomes of the questions as hexadecimal digits: the first bit is that of the first question."""
    return np.packbits(np.array(right, bool)).tobytes().hex()


def read_outcomes(digits: str, questions: int) -> list[bool]:
    """The outcomes that `write_outcomes` wrote.

    Example:
        >>> read_outcomes(write_outcomes([True, False, True]), 3)
        [True, False, True]
    """
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
    if not 0 <= len(bits) - questions < 8:
        raise ValueError(f"expected the outcomes of {questions} questions, got {len(bits)} bits")
    return [bool(bit) for bit in bits[:questions]]
