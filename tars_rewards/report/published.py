"""Published figures: of other models, other speech and other software than those measured here.

References:
    Wang et al., Closing the Modality Reasoning Gap for Speech Large Language Models, arXiv 2601.05543, 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

from tars_rewards.drift.published import FORCED_COSINE


@dataclass(frozen=True)
class PublishedModel:
    """Accuracies in percent, as (speech, text) pairs; None where none is published."""

    name: str
    mmsu: tuple[float, float | None]
    obqa: tuple[float, float | None]
    average: tuple[float, float]
    recovery_rate: float  #: MRR, against the original text backbone


MODELS = (
    PublishedModel("Qwen2.5-Omni-7B", (61.51, 67.94), (81.09, 84.40), (71.30, 76.17), 91.76),
    PublishedModel("Qwen2.5-Omni-7B + KD", (63.09, None), (82.64, None), (72.87, 76.89), 93.78),
    PublishedModel("Qwen2.5-Omni-7B + AlignChat", (69.65, None), (85.49, None), (77.57, 77.70), 99.83),
    PublishedModel("TARS-Qwen", (67.96, 68.54), (85.71, 88.57), (76.84, 78.56), 98.89),
    PublishedModel("Phi-4-MM", (54.81, 72.15), (71.65, 84.62), (63.23, 78.39), 79.59),
    PublishedModel("TARS-Phi", (70.14, 75.76), (89.45, 91.87), (79.80, 83.82), 100.45),
)

ABLATION = (
    ("Phi-4-MM", 63.16, 79.60),
    ("chain-of-thought prompt", 70.06, 88.29),
    ("SFT", 72.52, 91.37),
    ("DPO", 75.37, 94.98),
    ("GRPO, base reward", 73.17, 92.21),
    ("+ representation", 75.83, 95.56),
    ("+ behavior", 78.73, 99.22),
    ("both", 79.57, 100.28),
)
"""Of Phi-4-MM: speech accuracy, average of MMSU and OBQA in percent; MRR."""

BENCHMARKS = {"mmsu": "mmsu", "obqa": "obqa", "openbookqa": "obqa"}
"""Published set by a run's benchmark."""

TITLES = {"mmsu": "MMSU", "obqa": "OpenBookQA"}


def published_set(benchmark: str) -> str | None:
    """Name of the published set that a run's benchmark is; None for any other."""
    return BENCHMARKS.get(benchmark.lower())


def layer_means() -> dict[str, float]:
    """Published means over layers of the cosine of forced states, before training and after, by name."""
    return {f"MMSU, {name}": FORCED_COSINE["mmsu"][name] for name in ("base", "+ rep + beh")}
