"""Tables of drift."""

from __future__ import annotations

from tars_rewards.report.drift_charts import MEASURES, STATES, run_name
from tars_rewards.report.records import Curve, DriftRun, Estimate
from tars_rewards.report.tables import NONE, Body, Cell, Row, Table, percent


def behavior(drift: DriftRun) -> Table:
    """Behaviour deviation."""
    runs = [run for run in ("against", "model", "difference") if any(run in each for each in drift.behavior.values())]
    rows = [
        Row([Cell(name.replace("_", " ")), *[_with_n(by_run.get(run), signed=run == "difference") for run in runs]])
        for name, by_run in drift.behavior.items()
    ]
    note = (
        "Of pairs of a spoken and a written completion of the same question. Agreement, shares and consistency are in "
        "[0, 1] or a cosine; steps, tokens and lengths are counts. n: questions that have the figure."
    )
    return Table(
        f"Behaviour of {drift.label}", ("Figure", *(run_name(drift, run) for run in runs)), [Body("", rows)], note
    )


def overall(drift: DriftRun) -> Table:
    """Similarity, mean over layers, and how it changes along the completion."""
    bodies = [
        Body(title, [_overall_row(drift, curve) for curve in curves if curve.overall is not None])
        for title, curves in (
            ("Similarity", drift.curves),
            ("Along the completion: its last tenth less its first", drift.trends),
        )
        if curves
    ]
    note = "Below 0 along the completion: the states drift apart. n: questions."
    return Table(f"Mean over layers, {drift.label}", ("Measure", "Mean"), bodies, note if drift.trends else "")


def _overall_row(drift: DriftRun, curve: Curve) -> Row:
    what = f"{MEASURES.get(curve.measure, curve.measure)}, {STATES.get(curve.states, curve.states)}"
    signed = curve.run == "difference" or curve in drift.trends
    return Row([Cell(what, f"{run_name(drift, curve.run)}, {curve.pairs}"), _with_n(curve.overall, signed=signed)])


def _with_n(estimate: Estimate | None, *, signed: bool) -> Cell:
    cell = percent(estimate, times=1.0, digits=3, signed=signed)
    if estimate is None or cell.text == NONE:
        return cell
    n = f"n\u00a0=\u00a0{estimate.n}" if estimate.n is not None else ""
    return Cell(cell.text, "; ".join(filter(None, (cell.detail or "no interval", n))))
