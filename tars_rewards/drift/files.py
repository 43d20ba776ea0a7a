"""A directory of results: everything as JSON and CSV, what does not exist as null or an empty cell."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards._version import __version__
from tars_rewards.evaluation.records import make_directory
from tars_rewards.scoring.tables import write_rows

if TYPE_CHECKING:
    from tars_rewards.drift.curves import Curve, PositionCurve
    from tars_rewards.drift.intervals import Estimate
    from tars_rewards.drift.run import Drift

FORMAT = 1
_ESTIMATE = ("mean", "low", "high", "questions")
_LAYERS = ("run", "states", "measure", "pairs", "layer", *_ESTIMATE)
_POSITIONS = ("run", "measure", "pairs", "places", "start", "stop", "layer", *_ESTIMATE)


def write_files(drift: Drift, directory: str | os.PathLike[str]) -> None:
    """Write the results of a measurement.

    - ``drift.json``: settings, models, curves, positions (mean over layers), trends, behaviour, questions left out;
    - ``layers.csv``: every curve, a row a layer (from 0) and one for the mean over layers (``layer`` is "mean");
    - ``positions.csv``: along the completion, a row a place and layer; ``start`` and ``stop`` (exclusive) are tokens, or
      tenths of the completion;
    - ``questions.jsonl``: a line a question and model: similarity by layer, behaviour, completions.

    Args:
        drift: What was measured.
        directory: Made if it is not there; files of these names are replaced.

    Raises:
        InputError: It cannot be made.
    """
    out = Path(directory)
    make_directory(out)
    _replace(out / "drift.json", json.dumps(summary(drift), ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    _table(out / "layers.csv", _LAYERS, (row for curve in drift.curves for row in _layer_rows(curve)))
    width = drift.settings["bucket_tokens"]
    _table(out / "positions.csv", _POSITIONS, (row for curve in drift.positions for row in _place_rows(curve, width)))
    write_rows(out / "questions.jsonl", _question_rows(drift), parquet=False)


def summary(drift: Drift) -> dict[str, Any]:
    """Contents of ``drift.json``."""
    some = next(iter(drift.measured.values()))
    width = drift.settings["bucket_tokens"]
    content = {
        "format": FORMAT,
        "kind": "drift",
        "tars_rewards": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "scipy")},
        "models": dict(drift.models),
        "settings": dict(drift.settings),
        "questions": len(some.questions),
        "layers": some.layers,
        "final_norm": "before",  # the last layer's states are from before the decoder's final norm, as all layers' are
        "left_out": [{"id": name, "problem": problem} for name, problem in drift.left_out.items()],
        "curves": [_curve(curve) for curve in drift.curves],
        "positions": [
            {"run": each.run, "measure": each.measure, "pairs": each.pairs, "places": each.places}
            | {"start": _starts(each, width), **_estimate(each.along)}
            for each in drift.positions
            if each.layer is None
        ],
        "trends": [_curve(curve) for curve in drift.trends],
        "behavior": [{"run": each.run, "name": each.name, **_single(each.estimate)} for each in drift.behavior],
    }
    plain: dict[str, Any] = json.loads(json.dumps(_without_nan(content), default=str))
    return plain


def _curve(curve: Curve) -> dict[str, Any]:
    names = {"run": curve.run, "states": curve.states, "measure": curve.measure, "pairs": curve.pairs}
    return {**names, **_estimate(curve.layers), "overall": _single(curve.overall)}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {name: getattr(estimate, name).tolist() for name in _ESTIMATE}


def _single(estimate: Estimate) -> dict[str, Any]:
    return {name: getattr(estimate, name).tolist()[0] for name in _ESTIMATE}


def _starts(curve: PositionCurve, width: int) -> list[int]:
    step = 1 if curve.places == "tenths" else width
    return [place * step for place in range(len(curve.along.mean))]


def _layer_rows(curve: Curve) -> Iterator[tuple[Any, ...]]:
    names = (curve.run, curve.states, curve.measure, curve.pairs)
    for layer, values in enumerate(zip(*curve.layers, strict=True)):
        yield (*names, layer, *values)
    yield (*names, "mean", *(part[0] for part in curve.overall))


def _place_rows(curve: PositionCurve, width: int) -> Iterator[tuple[Any, ...]]:
    step = 1 if curve.places == "tenths" else width
    for start, values in zip(_starts(curve, width), zip(*curve.along, strict=True), strict=True):
        layer = "mean" if curve.layer is None else curve.layer
        yield (curve.run, curve.measure, curve.pairs, curve.places, start, start + step, layer, *values)


def _question_rows(drift: Drift) -> Iterator[dict[str, Any]]:
    for run, measured in drift.measured.items():
        for index, question in enumerate(measured.questions):
            similarity: dict[str, dict[str, dict[str, Any]]] = {}
            for (states, measure, pairs), values in measured.similarity.items():
                similarity.setdefault(states, {}).setdefault(measure, {})[pairs] = values[index].tolist()
            row = {
                "id": question.id,
                "run": run,
                "similarity": similarity,
                "behavior": {name: float(values[index]) for name, values in measured.behavior.items()},
                "forced": measured.forced[index].text,
                "completions": question.to_row().get("completions"),
            }
            yield _without_nan(row)


def _table(path: Path, columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> None:
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    aside.replace(path)


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
