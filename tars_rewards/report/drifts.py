"""Drift directories, as `tars_rewards.drift` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError
from tars_rewards.evaluation.records import read_json
from tars_rewards.report.records import Curve, DriftRun, Estimate

FILE = "drift.json"
FORMAT = 1
_CURVES = ("curves", "positions", "trends", "behavior")


def read_drift(directory: Path, label: str) -> DriftRun:
    """Read a directory.

    Raises:
        InputError: The file is corrupt, or of another version of the format.
    """
    path = directory / FILE
    content = read_json(path)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, Mapping) else content
        raise InputError(f"{path}: expected format {FORMAT}, got {got!r}; measure again: `tars-rewards drift`")
    try:
        behavior: dict[str, dict[str, Estimate]] = {}
        for each in content["behavior"]:
            behavior.setdefault(each["name"], {})[each["run"]] = _single(each)
        return DriftRun(
            label=label,
            info={name: value for name, value in content.items() if name not in _CURVES},
            models=content["models"],
            questions=content["questions"],
            curves=[_curve(each) for each in content["curves"]],
            positions=[_curve(each) for each in content["positions"]],
            trends=[_curve(each) for each in content["trends"]],
            behavior=behavior,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: expected drift of format {FORMAT}, but {type(error).__name__}: {error}; measure again: "
            "`tars-rewards drift`"
        ) from error


def _curve(content: Mapping[str, Any]) -> Curve:
    columns = (content[name] for name in ("mean", "low", "high", "questions"))
    points = [Estimate(*each) for each in zip(*columns, strict=True)]
    return Curve(
        run=content["run"],
        states=content.get("states", "forced"),
        measure=content["measure"],
        pairs=content["pairs"],
        points=points,
        starts=content.get("start", range(len(points))),
        places=content.get("places", "layers"),
        overall=_single(content["overall"]) if "overall" in content else None,
    )


def _single(content: Mapping[str, Any]) -> Estimate:
    return Estimate(content["mean"], content["low"], content["high"], content["questions"])
