"""Recognises what a report is given by what is in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError
from tars_rewards.evaluation.records import KIND, RUN, read_json
from tars_rewards.report import comparisons, drifts, trainings
from tars_rewards.report.comparisons import read_comparison
from tars_rewards.report.drifts import read_drift
from tars_rewards.report.evaluations import read_evaluation
from tars_rewards.report.records import Inputs
from tars_rewards.report.trainings import read_training

EXPECTED = (
    "expected a directory that `tars-rewards evaluate` (run.json), `tars-rewards drift` (drift.json) or a training run "
    "(metrics.jsonl or rollouts.jsonl) wrote, or the JSON file of `tars-rewards compare`"
)


def collect(paths: Sequence[str | os.PathLike[str]]) -> Inputs:
    """Read everything given. A directory that is none of these, but holds some, stands for those, in order of their names.

    Raises:
        InputError: Something cannot be used; everything that cannot is named.
    """
    problems: list[str] = []
    found: list[tuple[Path, str]] = []
    for given in paths:
        path = Path(given)
        kinds = _kinds(path)
        inside = [] if kinds or not path.is_dir() else [each for each in sorted(path.iterdir()) if each.is_dir()]
        here = [(path, kind) for kind in kinds] or [(each, kind) for each in inside for kind in _kinds(each)]
        if not here:
            problems.append(f"{path}: {EXPECTED}, got {_seen(path)}")
        found += here
    if not paths:
        problems.append(f"{EXPECTED}, got nothing")
    found = list({(path.resolve(), kind): (path, kind) for path, kind in found}.values())
    inputs = Inputs([], [], [], [])
    for label, (path, kind) in zip(_labels([path for path, _ in found]), found, strict=True):
        try:
            _read(inputs, path, kind, label)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(f"{len(problems)} of the report's inputs cannot be used:", problems)
    return inputs


def _kinds(path: Path) -> list[str]:
    """What a path is; a directory can be several things."""
    if path.is_file():
        return ["comparison"] if path.suffix == ".json" else []
    kinds = []
    run = path / RUN
    if run.is_file() and _kind_of(run) != "training":
        kinds.append("evaluation")
    if (path / drifts.FILE).is_file():
        kinds.append("drift")
    if (path / "comparison.json").is_file():
        kinds.append("comparison")
    if (path / trainings.METRICS).is_file() or (path / trainings.ROLLOUTS).is_file():
        kinds.append("training")
    return kinds


def _kind_of(run: Path) -> Any:
    try:
        content = read_json(run)
    except InputError:
        return KIND  # its reader says what is wrong with it
    return content.get("kind") if isinstance(content, Mapping) else KIND


def _read(inputs: Inputs, path: Path, kind: str, label: str) -> None:
    if kind == "evaluation":
        inputs.evaluations.append(read_evaluation(path, label))
    elif kind == "drift":
        inputs.drifts.append(read_drift(path, label))
    elif kind == "training":
        inputs.trainings.append(read_training(path, label))
    else:
        file = path / "comparison.json" if path.is_dir() else path
        content = read_json(file)
        got = content.get("kind") if isinstance(content, Mapping) else type(content).__name__
        if got != comparisons.KIND:
            raise InputError(f"{file}: {EXPECTED}, got JSON of kind {got!r}")
        inputs.comparisons.append(read_comparison(content, file, label))


def _seen(path: Path) -> str:
    if not path.exists():
        return "nothing of that name"
    if path.is_file():
        return "a file"
    names = sorted(each.name for each in path.iterdir())
    return f"a directory with {', '.join(names[:6]) or 'nothing in it'}{', …' if len(names) > 6 else ''}"


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    whole = [path.resolve().with_suffix("") if path.is_file() else path.resolve() for path in paths]
    labels = [path.name for path in whole]
    parts = 1
    while parts < max((len(path.parts) for path in whole), default=0):
        twice = {label for label, count in Counter(labels).items() if count > 1}
        if not twice:
            break
        parts += 1
        labels = [
            "/".join(path.parts[-parts:]) if label in twice else label
            for label, path in zip(labels, whole, strict=True)
        ]
    return labels
