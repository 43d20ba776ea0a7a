"""Charts of drift: similarity of spoken and written states by layer and along the completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from tars_rewards.report.charts import PUBLISHED_LOOKS, Chart, Look, Series
from tars_rewards.report.records import Curve, DriftRun, Estimate

MEASURES = {"cosine": "cosine", "centred": "centred cosine", "cka": "debiased linear CKA"}
STATES = {"forced": "same completion, forced", "rollouts": "own completions, pooled"}
_LAYERS = "decoder layer"


def layer_charts(drift: DriftRun, published: Mapping[str, float]) -> list[Chart]:
    """Similarity by layer, before and after, and the paired difference.

    Args:
        drift: What was measured.
        published: Means over layers of the cosine of forced states, by name, to be drawn beside it: two at most.
    """
    charts = []
    for states, measure in dict.fromkeys((curve.states, curve.measure) for curve in drift.curves):
        curves = [curve for curve in drift.curves if (curve.states, curve.measure) == (states, measure)]
        what = f"{MEASURES.get(measure, measure)}, {STATES.get(states, states)}"
        name = f"layers-{states}-{measure}-{drift.label}"
        series = _similarities(drift, curves)
        anchors = published if (states, measure) == ("forced", "cosine") else {}
        width = max((len(each.x) for each in series), default=1)
        series += [
            Series(f"published, {text} ({value:g})", [1.0, float(width)], [Estimate(value)] * 2, look, "none published")
            for (text, value), look in zip(anchors.items(), PUBLISHED_LOOKS, strict=False)
        ]
        caption = f"Bands: {_level(drift)} over {drift.questions} questions. {_control(series)}" + (
            " Published lines are means over layers of other models on other questions: a scale, not a target."
            if anchors
            else ""
        )
        charts.append(
            Chart(name, f"Similarity by layer: {what}", caption, _LAYERS, MEASURES.get(measure, measure), series)
        )
        charts += _difference(drift, curves, f"{name}-difference", f"Change by layer: {what}", _LAYERS)
    return charts


def position_charts(drift: DriftRun) -> list[Chart]:
    """Similarity along the forced completion, and the paired difference."""
    charts = []
    for measure, places in dict.fromkeys((curve.measure, curve.places) for curve in drift.positions):
        curves = [curve for curve in drift.positions if (curve.measure, curve.places) == (measure, places)]
        what = MEASURES.get(measure, measure)
        axis = "tenth of the completion" if places == "tenths" else "token of the completion, from"
        series = _similarities(drift, curves)
        name = f"positions-{places}-{measure}-{drift.label}"
        caption = f"Mean over layers of forced states. Bands: {_level(drift)}. {_control(series)}" + (
            " Places far from the beginning are of the questions with long completions alone."
            if places == "tokens"
            else ""
        )
        charts.append(Chart(name, f"Along the completion by {places}: {what}", caption, axis, what, series))
        charts += _difference(
            drift, curves, f"{name}-difference", f"Change along the completion by {places}: {what}", axis
        )
    return charts


def _difference(drift: DriftRun, curves: Sequence[Curve], name: str, title: str, axis: str) -> list[Chart]:
    found = [curve for curve in curves if curve.run == "difference" and curve.pairs == "matched"]
    series = [
        Series(f"{run_name(drift, 'model')} less {run_name(drift, 'against')}", _places(curve), curve.points, "change",
               _level(drift))
        for curve in found
    ]  # fmt: skip
    caption = (
        f"Paired by question: {run_name(drift, 'model')} less {run_name(drift, 'against')}, with {_level(drift)}; each "
        "place by itself, without correction for their number. Above 0: closer than before."
    )
    return [Chart(name, title, caption, axis, "difference", series, zero=True)] if series else []


def _similarities(drift: DriftRun, curves: Sequence[Curve]) -> list[Series]:
    """Before, after, and their controls."""
    drawn = [curve for curve in curves if curve.run != "difference" and curve.pairs != "margin"]
    return [_series(drift, curve) for curve in sorted(drawn, key=lambda curve: curve.run == "model")]


def _series(drift: DriftRun, curve: Curve) -> Series:
    control = curve.pairs == "mismatched"
    looks: dict[tuple[str, bool], Look] = {
        ("against", False): "first", ("model", False): "second",
        ("against", True): "first_control", ("model", True): "second_control",
    }  # fmt: skip
    name = run_name(drift, curve.run)
    return Series(f"{name}, mismatched" if control else name, _places(curve), curve.points, looks[curve.run, control],
                  _level(drift))  # fmt: skip


def _places(curve: Curve) -> list[float]:
    """Layers and tenths count from 1 for the eye, tokens from 0."""
    return [float(start) + (curve.places != "tokens") for start in curve.starts]


def run_name(drift: DriftRun, run: str) -> str:
    """What a run is called: its model, and which of two it is."""
    if run == "difference":
        return "difference"
    short = PurePath(str(drift.models.get(run, run))).name
    if len(drift.models) == 1:
        return short
    return f"{'before' if run == 'against' else 'after'}: {short}"


def _level(drift: DriftRun) -> str:
    settings = drift.info.get("settings")
    confidence = settings.get("confidence") if isinstance(settings, Mapping) else None
    return "interval" if confidence is None else f"{100 * confidence:g} % interval"


def _control(series: Sequence[Series]) -> str:
    if not any(each.look.endswith("control") for each in series):
        return ""
    return "Mismatched: the spoken states of one question with the written ones of another, as a control."
