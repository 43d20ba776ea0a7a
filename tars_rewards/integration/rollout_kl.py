"""Guard of a training step: the rollout engine and the actor must agree about what was sampled.

They hold the same weights and were given the same prompts, so they give the same log-probabilities but for rounding. If
they do not, a weight push did not arrive, or one of the two did not get the audio; training would go on all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from tars_rewards.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

HALF_PRECISION_LIMIT = 2e-2
FLOAT32_LIMIT = 1e-4


def rollout_kl(
    modalities: Sequence[str], rollout_log_probs: Sequence[Tensor], actor_log_probs: Sequence[Tensor]
) -> dict[str, float]:
    """K3 estimate of KL(rollout || actor) by modality, mean over its tokens.

    `mean(exp(d) - 1 - d)` with `d` the actor's log-probability minus the rollout engine's (Schulman, "Approximating KL
    divergence", 2020); at least 0 and, unlike the plain mean of `d`, never near 0 by cancellation.

    Args:
        modalities: Modality of each completion.
        rollout_log_probs: Log-probabilities by the rollout engine, one tensor [tokens] per completion.
        actor_log_probs: Log-probabilities of the same tokens by the actor.

    Example:
        >>> same = [torch.tensor([-0.5, -1.0])]
        >>> rollout_kl(["speech"], same, same)
        {'speech': 0.0}
    """
    ratios: dict[str, list[Tensor]] = defaultdict(list)
    for modality, sampled, actor in zip(modalities, rollout_log_probs, actor_log_probs, strict=True):
        ratios[modality].append(actor.double() - sampled.double())
    joined = {modality: torch.cat(parts) for modality, parts in ratios.items()}
    return {modality: float((torch.expm1(ratio) - ratio).mean()) for modality, ratio in joined.items()}


def rollout_kl_limit(configured: float | None, dtype: str) -> float:
    """Bound of `rollout_kl` for a rollout dtype ("float32", "bfloat16", …); 0 means no guard."""
    if configured is not None:
        return configured
    return FLOAT32_LIMIT if dtype in ("float32", "fp32", "float") else HALF_PRECISION_LIMIT


def check_rollout_kl(by_modality: Mapping[str, float], limit: float, *, step: int, setting: str) -> None:
    """Stop a run whose rollout engine and actor disagree.

    Args:
        by_modality: From `rollout_kl`.
        limit: Largest value that is rounding; 0: no guard.
        step: Training step, for the message.
        setting: What the user sets to change the limit, for the message.

    Raises:
        AdapterError: The rollout engine did not get the last weights, or not the audio that the actor got.
    """
    if not limit or not by_modality:
        return
    # "not <=" rather than ">": NaN is no agreement either.
    off = sorted(name for name, value in by_modality.items() if not value <= limit)
    if off:
        figures = ", ".join(f"{name} {value:.2e}" for name, value in sorted(by_modality.items()))
        raise AdapterError(
            f"step {step}: the rollout engine and the actor disagree about the completions of {' and '.join(off)}: k3 KL "
            f"{figures}, expected at most {limit:.0e}. If one modality alone is off, its inputs differ between the two "
            "(audio lost, or its placeholders expanded twice); if all are, the last weight push did not arrive. If the two "
            f"are right and merely differ numerically, raise {setting} (0 switches the guard off)."
        )
