"""Pictures of a measurement, in colours that colour-blind eyes tell apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.drift.curves import DIFFERENCE
from tars_rewards.drift.positions import TENTHS
from tars_rewards.drift.published import FORCED_COSINE, SOURCE
from tars_rewards.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from tars_rewards.drift.intervals import Estimate
    from tars_rewards.drift.run import Drift

_COLOURS = {"model": "#0072B2", "against": "#D55E00", DIFFERENCE: "#000000"}  # Okabe and Ito's
_CONTROL = "#009E73"  # of the difference of mismatched pairs, whose band would else merge with the matched ones'
_LINES = {"matched": "-", "mismatched": "--"}
_MARKERS = {"matched": "o", "mismatched": "x"}
_MEASURES = {"cosine": "cosine", "centred": "centred cosine", "cka": "debiased linear CKA"}
_STATES = {"forced": "same completion", "rollouts": "own completions"}
_PUBLISHED = {"linewidth": 1.0, "color": "#666666", "zorder": 0}
_DOTS = (":", "-.", (0, (1, 4)))


def write_plots(drift: Drift, directory: str | os.PathLike[str], *, published: str | None = None) -> None:
    """Draw ``layers.png``, ``positions.png`` and, where there are two models, ``difference.png``.

    Args:
        drift: What was measured.
        directory: Where to.
        published: "mmsu" or "obqa": draw the paper's means on that set into the panel of the same measure, named as such.

    Raises:
        ConfigError: There is nothing published on that set.
        MissingDependencyError: matplotlib is not installed.
    """
    if published is not None and published not in FORCED_COSINE:
        raise ConfigError(f"published is {published!r}; expected one of {', '.join(FORCED_COSINE)}, or None")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise MissingDependencyError(
            "plots need matplotlib, and it is not installed; pip install tars-rewards[plot]"
        ) from error

    def panels(rows: int, columns: int) -> tuple[Any, Any]:
        figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)

    out = Path(directory)
    _layers(drift, panels, published).savefig(out / "layers.png", dpi=150)
    _positions(drift, panels).savefig(out / "positions.png", dpi=150)
    if DIFFERENCE in {curve.run for curve in drift.curves}:
        _difference(drift, panels).savefig(out / "difference.png", dpi=150)


def _layers(drift: Drift, panels: Any, published: str | None) -> Any:
    figure, axes = panels(len(_STATES), len(_MEASURES))
    for row, states in zip(axes, _STATES, strict=True):
        for axis, measure in zip(row, _MEASURES, strict=True):
            for curve in drift.curves:
                if (
                    (curve.states, curve.measure) == (states, measure)
                    and curve.pairs in _LINES
                    and curve.run in drift.models
                ):
                    _draw(axis, np.arange(len(curve.layers.mean)), curve.layers, curve.run, curve.pairs)
            if published is not None and (states, measure) == ("forced", "cosine"):
                for line, (name, value) in zip(_DOTS, FORCED_COSINE[published].items(), strict=True):
                    axis.axhline(value, linestyle=line, **_PUBLISHED, label=f"{name}: {SOURCE} (mean of 32 layers)")
            _name(axis, f"{_MEASURES[measure]}, {_STATES[states]}", "decoder layer, from 0", "speech against text")
    _legend(figure)
    return figure


def _difference(drift: Drift, panels: Any) -> Any:
    figure, axes = panels(len(_STATES), len(_MEASURES))
    for row, states in zip(axes, _STATES, strict=True):
        for axis, measure in zip(row, _MEASURES, strict=True):
            axis.axhline(0, linewidth=0.8, color="#666666")
            for curve in drift.curves:
                if (curve.run, curve.states, curve.measure) == (DIFFERENCE, states, measure) and curve.pairs in _LINES:
                    _draw(axis, np.arange(len(curve.layers.mean)), curve.layers, curve.run, curve.pairs)
            _name(axis, f"{_MEASURES[measure]}, {_STATES[states]}", "decoder layer, from 0", "model less against")
    _legend(figure)
    return figure


def _positions(drift: Drift, panels: Any) -> Any:
    measures = [name for name in _MEASURES if any(curve.measure == name for curve in drift.positions)]
    figure, axes = panels(len(measures), 2)
    width = drift.settings["bucket_tokens"]
    places = {"tenths": (100 / TENTHS, "% of the completion"), "tokens": (width, "token of the completion")}
    for row, measure in zip(axes, measures, strict=True):
        for axis, (name, (step, label)) in zip(row, places.items(), strict=True):
            for curve in drift.positions:
                of_panel = (curve.measure, curve.places, curve.layer) == (measure, name, None)
                if of_panel and curve.run in drift.models and curve.pairs in _LINES:
                    _draw(axis, (np.arange(len(curve.along.mean)) + 0.5) * step, curve.along, curve.run, curve.pairs)
            _name(axis, f"{_MEASURES[measure]}, mean of the layers", label, "speech against text")
    _legend(figure)
    return figure


def _draw(axis: Any, at: Any, estimate: Estimate, run: str, pairs: str) -> None:
    colour = _CONTROL if (run, pairs) == (DIFFERENCE, "mismatched") else _COLOURS[run]
    axis.plot(at, estimate.mean, _LINES[pairs], marker=_MARKERS[pairs], ms=3, color=colour, label=f"{run}, {pairs}")
    axis.fill_between(at, estimate.low, estimate.high, color=colour, alpha=0.2, linewidth=0)


def _name(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _legend(figure: Any) -> None:
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        entries.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=7)
