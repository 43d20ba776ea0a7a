"""What the demo prints and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TERMS = ("accuracy", "format", "representation", "behavior")


def progress_line(record: dict[str, Any], steps: int, seconds: float) -> str:
    """One line for one training step, from the metrics under ``tars/`` and the seconds since the training began."""
    data = record["data"]

    def figure(name: str) -> str:
        value = data.get(name)
        return "  -  " if value is None else f"{value:5.2f}"

    return (
        f"step {record['step']:3d}/{steps}  "
        f"speech acc {figure('tars/accuracy/speech/mean')}  text acc {figure('tars/accuracy/text/mean')}  "
        f"format {figure('tars/format/speech/mean')}  representation {figure('tars/representation/speech/mean')}  "
        f"behavior {figure('tars/behavior/speech/mean')}  {seconds:5.0f} s"
    )


def print_table(summary: dict[str, Any]) -> None:
    """The before/after table."""
    before, after = summary["before"], summary["after"]
    rows = [
        ("speech accuracy", lambda r: r["speech_accuracy"]),
        ("text accuracy", lambda r: r["text_accuracy"]),
        ("gap (text - speech)", lambda r: r["text_accuracy"] - r["speech_accuracy"]),
        ("MRR", lambda r: r["mrr"]),
        ("own-text ratio", lambda r: r["own_text_ratio"]),
        ("mean layer cosine", lambda r: r["layer_cosine"] and sum(r["layer_cosine"]) / len(r["layer_cosine"])),
    ]
    print(f"\n{'held-out questions: ' + str(before['questions']):<28}{'before':>9}{'after':>9}{'change':>9}")
    for name, read in rows:
        a, b = read(before), read(after)
        # A ratio to an accuracy of 0, and a cosine without any correct written completion, do not exist.
        change = "-" if a is None or b is None else f"{b - a:+.3f}"
        print(f"{name:<28}{_figure(a):>9}{_figure(b):>9}{change:>9}")
    print(f"MRR = 100 x speech accuracy / text accuracy before training ({after['mrr_denominator']:.3f})\n")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_plots(out: Path, records: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Reward terms by step and modality; layer cosine before and after.

    Args:
        out: Where to.
        records: Metrics of every step.
        summary: With the layer cosines.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(TERMS), figsize=(14, 3.2), sharex=True)
    for axis, term in zip(axes, TERMS, strict=True):
        for modality, color in (("speech", "C0"), ("text", "C1")):
            points = [(r["step"], r["data"].get(f"tars/{term}/{modality}/mean")) for r in records]
            points = [point for point in points if point[1] is not None]
            if points:
                axis.plot(*zip(*points, strict=True), color=color, label=modality, marker=".")
        axis.set(title=term, xlabel="step", ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean over completions")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(out / "rewards.png", dpi=150)

    figure, axis = plt.subplots(figsize=(5, 3.2))
    for name in ("before", "after"):
        cosines = summary[name]["layer_cosine"] or []
        axis.plot(range(1, len(cosines) + 1), cosines, marker="o", label=name)
    axis.set(xlabel="decoder layer", ylabel="cosine of speech and text states")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(out / "layer_cosine.png", dpi=150)
