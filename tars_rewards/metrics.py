"""Numbers to log while training, and the numbers that describe the modality reasoning gap.

A mean over nothing does not exist: its key is then left out, and the count beside it is 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tars_rewards.errors import RolloutError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch
    from tars_rewards.config import TARSConfig

OF_BOTH_MODALITIES = ("accuracy", "format", "total")
"""The terms that anchor rollouts have too."""


@dataclass(frozen=True)
class ModalityGap:
    """Accuracies of one model on the same questions in both modalities, and what follows from them.

    Accuracies, gap and ratio are shares (0.615, not 61.5); the modality recovery rate is in percent, as in the paper
    (arXiv 2601.05543, section 5.1). A number that does not exist is None.
    """

    target_accuracy: float | None
    target_n: int
    anchor_accuracy: float | None
    anchor_n: int
    gap: float | None  #: anchor_accuracy - target_accuracy
    own_ratio: float | None  #: target_accuracy / anchor_accuracy of the same model: stricter than the recovery rate
    recovery_rate: float | None  #: MRR = 100 * target_accuracy / denominator
    denominator: float | None  #: accuracy that the recovery rate is measured against
    denominator_name: str  #: where that accuracy comes from, to be printed with the rate
    target_modality: str = "speech"
    anchor_modality: str = "text"

    def as_metrics(self, prefix: str = "") -> dict[str, float]:
        """Flat metrics to log; those that do not exist are left out.

        Example:
            >>> gap = modality_gap([True, False, True, True], ["speech", "speech", "text", "text"])
            >>> gap.as_metrics()["own_text_ratio"], gap.as_metrics()["mrr"]
            (0.5, 50.0)
        """
        numbers = {
            f"{self.target_modality}_accuracy": self.target_accuracy,
            f"{self.target_modality}_n": self.target_n,
            f"{self.anchor_modality}_accuracy": self.anchor_accuracy,
            f"{self.anchor_modality}_n": self.anchor_n,
            "gap": self.gap,
            "mrr": self.recovery_rate,
            "mrr_denominator": self.denominator,
            f"own_{self.anchor_modality}_ratio": self.own_ratio,
        }
        return {prefix + name: float(number) for name, number in numbers.items() if number is not None}


def modality_gap(
    correct: Sequence[bool],
    modalities: Sequence[str],
    *,
    backbone_accuracy: float | None = None,
    backbone_name: str = "backbone",
    target_modality: str = "speech",
    anchor_modality: str = "text",
) -> ModalityGap:
    """Accuracy in both modalities, the gap between them, and how much of it is recovered.

    Args:
        correct: Whether each answer is right.
        modalities: Modality of each answer; the counts may differ.
        backbone_accuracy: Accuracy in (0, 1] that the recovery rate is measured against: the paper takes the original
            text model's. None: the model's own in the anchor modality.
        backbone_name: What that accuracy is, printed with the rate.
        target_modality: The modality whose reasoning is to be brought closer.
        anchor_modality: The modality it is compared with.

    Raises:
        RolloutError: The arguments differ in length, a modality is unknown, or the backbone's accuracy is out of range.

    Example:
        >>> gap = modality_gap([True, False, True, True], ["speech", "speech", "text", "text"], backbone_accuracy=0.8)
        >>> gap.gap, gap.recovery_rate, gap.denominator_name
        (0.5, 62.5, 'backbone')
    """
    if len(correct) != len(modalities):
        raise RolloutError(f"expected one modality an answer, got {len(correct)} answers, {len(modalities)} modalities")
    unknown = set(modalities) - {target_modality, anchor_modality}
    if unknown:
        raise RolloutError(f"expected {target_modality!r} or {anchor_modality!r}, got {', '.join(sorted(unknown))}")
    if backbone_accuracy is not None and not 0.0 < backbone_accuracy <= 1.0:
        raise RolloutError(f"expected backbone_accuracy as a share in (0, 1], got {backbone_accuracy!r}")
    right = np.array([bool(value) for value in correct], bool)
    of_target = np.array([modality == target_modality for modality in modalities], bool)
    target, target_n = _accuracy(right[of_target])
    anchor, anchor_n = _accuracy(right[~of_target])
    denominator = anchor if backbone_accuracy is None else float(backbone_accuracy)
    own_ratio = _ratio(target, anchor)
    rate = _ratio(target, denominator)
    return ModalityGap(
        target_accuracy=target,
        target_n=target_n,
        anchor_accuracy=anchor,
        anchor_n=anchor_n,
        gap=None if target is None or anchor is None else anchor - target,
        own_ratio=own_ratio,
        recovery_rate=None if rate is None else 100.0 * rate,
        denominator=denominator,
        denominator_name=f"own {anchor_modality}" if backbone_accuracy is None else backbone_name,
        target_modality=target_modality,
        anchor_modality=anchor_modality,
    )


def reward_metrics(
    batch: RolloutBatch,
    config: TARSConfig,
    *,
    total: Float[Tensor, " rollouts"],
    base: Float[Tensor, " rollouts"],
    components: Mapping[str, Float[Tensor, " rollouts"]],
    valid: Mapping[str, Bool[Tensor, " rollouts"]],
    candidate: Bool[np.ndarray, " rollouts"],
    seconds: Mapping[str, float],
    over_window: int | None = None,
    embedder_failures: int | None = None,
) -> dict[str, float]:
    """Metrics of one step, all under "tars/".

    - `tars/<term>/<modality>/{mean,std,count}`: accuracy, format and total of both modalities, representation, behavior
      and your own terms of the target modality, each over the rollouts where it is valid; `std` is the population's.
    - `tars/reward_gap`: mean base reward of the anchor modality minus that of the target modality.
    - `tars/pairs/count`, and `tars/pairs/without_reference`: the share of pairs with target rollouts that have no
      correct anchor rollout to compare them with.
    - `tars/truncated/<modality>`: share of truncated rollouts.
    - `tars/behavior/over_window`: distinct texts embedded here that exceed the embedder's window, where it tells.
    - `tars/behavior/embedder_failures`: completions whose embedding failed, where that does not stop the run.
    - `tars/seconds/<stage>`.

    Args:
        batch: The rollouts.
        config: Names the modalities.
        total: Total reward.
        base: Base reward.
        components: Unweighted terms by name.
        valid: Where each term is valid.
        candidate: Rollouts that may serve as a reference.
        seconds: Wall time of each stage.
        over_window: Number of texts longer than the embedder's window; None: unknown, or nothing was embedded.
        embedder_failures: Number of completions whose embedding failed; None: it would have been raised.
    """
    values = {name: component.numpy().astype(np.float64) for name, component in components.items()}
    usable = {name: mask.numpy() for name, mask in valid.items()}
    values["total"], usable["total"] = total.numpy().astype(np.float64), np.ones(len(batch), bool)
    truncated = np.array([rollout.truncated for rollout in batch.rollouts], bool)
    metrics: dict[str, float] = {}
    for modality, rows in ((config.target_modality, batch.is_target), (config.anchor_modality, ~batch.is_target)):
        for name in values:
            if name not in OF_BOTH_MODALITIES and modality != config.target_modality:
                continue
            metrics.update(_spread(f"tars/{name}/{modality}", values[name][rows & usable[name]]))
        if rows.any():
            metrics[f"tars/truncated/{modality}"] = float(truncated[rows].mean())
    if batch.is_target.any() and not batch.is_target.all():
        by_itself = base.numpy().astype(np.float64)
        metrics["tars/reward_gap"] = float(by_itself[~batch.is_target].mean() - by_itself[batch.is_target].mean())
    metrics["tars/pairs/count"] = float(len(batch.pair_ids))
    asking, answered = np.zeros(len(batch.pair_ids), bool), np.zeros(len(batch.pair_ids), bool)
    asking[batch.pair[batch.is_target]] = True
    answered[batch.pair[candidate]] = True
    if asking.any():
        metrics["tars/pairs/without_reference"] = float((~answered[asking]).mean())
    if over_window is not None:
        metrics["tars/behavior/over_window"] = float(over_window)
    if embedder_failures is not None:
        metrics["tars/behavior/embedder_failures"] = float(embedder_failures)
    metrics.update({f"tars/seconds/{stage}": time for stage, time in seconds.items()})
    return metrics


def _spread(key: str, values: Float[np.ndarray, " valid"]) -> dict[str, float]:
    count = len(values)
    if not count:
        return {f"{key}/count": 0.0}
    mean = float(values.sum()) / count
    deviations = values - mean  # a third of the time of `std`, which counts in small batches
    std = math.sqrt(float(deviations.dot(deviations)) / count)
    return {f"{key}/count": float(count), f"{key}/mean": mean, f"{key}/std": std}


def _accuracy(right: Bool[np.ndarray, " answers"]) -> tuple[float | None, int]:
    return (float(right.mean()) if len(right) else None), len(right)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds that a stage takes."""
    begin = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begin
