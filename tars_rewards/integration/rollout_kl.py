"""Guard of a training step: the rollout engine and the actor must agree about what was sampled.

They hold the same weights and were given the same prompts, so they give the same log-probabilities but for rounding. If
they do not, a weight push did not arrive, or one of the two did not get the audio; training would go on all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import torch

from tars_rewards.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

HALF_PRECISION_LIMIT = 2e-2
FLOAT32_LIMIT = 1e-4
FIRST_STEPS = 3
"""Steps whose median is what rounding amounts to in this run."""
RISE = 10.0
SMALLEST_RELATIVE_LIMIT = 1e-3
_FLOAT32 = ("32", "float", "float32", "fp32")


def rollout_kl(
    modalities: Sequence[str], rollout_log_probs: Sequence[Tensor], actor_log_probs: Sequence[Tensor]
) -> dict[str, float]:
    """K3 estimate of KL(rollout || actor) by modality, mean over its tokens.

    `mean(exp(d) - 1 - d)` with `d` the actor's log-probability minus the rollout engine's (Schulman, "Approximating KL
    divergence", 2020); at least 0 and, unlike the plain mean of `d`, never near 0 by cancellation. A token counts for 1 at
    the most: it grows with the exponential of `d`, and one odd token of many must not stop a run.

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
    return {modality: float((torch.expm1(ratio) - ratio).clamp(max=1.0).mean()) for modality, ratio in joined.items()}


class RolloutKLGuard:
    """Stops a run whose rollout engine and actor disagree, by `rollout_kl` of each step.

    In float32 rounding stays far below the absolute limit of 1e-4, and a lost weight push or lost audio comes far above
    it. In half precision rounding is larger by orders of magnitude and depends on the model: the absolute limit of 2e-2 sees
    gross differences only, such as audio that the engine does not get. What rounding amounts to in this run is therefore
    learnt from its first three steps, when there is little that the engine could have missed: later values may be ten
    times their median, or 1e-3 where that is more.

    What it cannot see in half precision: a disagreement that is there from the first step and stays below 2e-2 (it is
    taken for rounding: compare the modalities); a lost push while the policy has hardly moved, which shows only once the
    missed updates add up to the limit. A resumed run learns anew. A limit that the user sets is the only one in force.

    Args:
        configured: The user's limit; None: by dtype and first steps; 0: no guard.
        dtypes: Those that the rollout engine and the actor compute in ("bfloat16", "fp32", …); the coarser counts.
        setting: What the user sets to change the limit, for messages.
    """

    def __init__(self, configured: float | None, dtypes: Iterable[str], setting: str) -> None:
        half = [dtype for dtype in dtypes if dtype.removeprefix("torch.") not in _FLOAT32]
        self.limit = rollout_kl_limit(configured, half[0] if half else "float32")
        self._setting = setting
        self._relative = configured is None and bool(half)
        self._first: dict[str, list[float]] = defaultdict(list)

    def check(self, by_modality: Mapping[str, float], step: int) -> None:
        """Compare a step's values with the limits.

        Args:
            by_modality: From `rollout_kl`.
            step: Training step, for the message.

        Raises:
            AdapterError: The rollout engine did not get the last weights, or not the audio that the actor got.
        """
        check_rollout_kl(by_modality, self.limit, step=step, setting=self._setting)
        if not self._relative:
            return
        off = {}
        for modality, value in by_modality.items():
            first = self._first[modality]
            if len(first) < FIRST_STEPS:
                first.append(value)
            elif value > (limit := max(SMALLEST_RELATIVE_LIMIT, RISE * median(first))):
                off[modality] = (
                    f"{limit:.1e} for {modality} (median of the first {FIRST_STEPS} steps {median(first):.1e})"
                )
        if off:
            raise _disagreement(by_modality, off, ", ".join(off.values()), step=step, setting=self._setting)


def rollout_kl_limit(configured: float | None, dtype: str) -> float:
    """Bound of `rollout_kl` for a dtype ("float32", "bfloat16", …), whatever the first steps were; 0 means no guard."""
    if configured is not None:
        return configured
    return FLOAT32_LIMIT if dtype in _FLOAT32 else HALF_PRECISION_LIMIT


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
    # "not <=" rather than ">": NaN is no agreement either.
    off = [name for name, value in by_modality.items() if limit and not value <= limit]
    if off:
        raise _disagreement(by_modality, off, f"{limit:.0e}", step=step, setting=setting)


def _disagreement(
    by_modality: Mapping[str, float], off: Iterable[str], expected: str, *, step: int, setting: str
) -> AdapterError:
    figures = ", ".join(f"{name} {value:.2e}" for name, value in sorted(by_modality.items()))
    return AdapterError(
        f"step {step}: the rollout engine and the actor disagree about the completions of {' and '.join(sorted(off))}: k3 KL "
        f"{figures}, expected at most {expected}. If one modality alone is off, its inputs differ between the two "
        "(audio lost, or its placeholders expanded twice); if all are, the last weight push did not arrive. If the two "
        f"are right and merely differ numerically, raise {setting} (0 switches the guard off)."
    )
