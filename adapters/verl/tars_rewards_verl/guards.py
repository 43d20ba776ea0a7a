"""What must hold in every training step; verl itself would train on without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch

from tars_rewards.errors import AdapterError, IncompletePairError
from tars_rewards_verl.batch import split_key

HALF_PRECISION_LIMIT = 2e-2
FLOAT32_LIMIT = 1e-4


def check_rows(keys: Iterable[str], prompts: Mapping[str, tuple[str, str]], samples: int) -> None:
    """Every prompt that was sent to the rollout engine must have come back with all of its completions.

    verl drops a completion whose generation raised, logs the error and trains on what is left.

    Args:
        keys: TransferQueue keys that came back, ``{uid}_{sample}_{index}``.
        prompts: (pair_id, modality) of every uid sent.
        samples: Completions per prompt.

    Raises:
        IncompletePairError: Completions are missing, or of prompts that were not sent.
    """
    came = Counter(split_key(key)[0] for key in keys)
    if came.keys() - prompts.keys():
        raise IncompletePairError(
            f"{len(came.keys() - prompts.keys())} prompts of the batch are not of this step; expected the {len(prompts)} "
            "prompts that were sent to the rollout engine"
        )
    missing = {uid: samples - came[uid] for uid in prompts if came[uid] != samples}
    if missing:
        lost: Counter[str] = Counter()
        for uid, count in missing.items():
            lost[prompts[uid][1]] += count
        pair_id, modality = prompts[next(iter(missing))]
        raise IncompletePairError(
            f"expected {samples} completions of each of {len(prompts)} prompts, but "
            + ", ".join(f"{count} {name}" for name, count in sorted(lost.items()))
            + f" completions are missing (first: pair {pair_id!r}, {modality}). verl drops a completion whose generation "
            "or reward raised: its traceback stands above in the log, after 'Error in _run_prompt'."
        )


def k3_kl(rollout_log_probs: Sequence[torch.Tensor], actor_log_probs: Sequence[torch.Tensor]) -> float:
    """K3 estimate of KL(rollout || actor), mean over tokens (Schulman, "Approximating KL divergence", 2020).

    The same figure as verl's ``rollout_corr/k3_kl``, of a part of the batch.

    Args:
        rollout_log_probs: Log-probabilities by the rollout engine, one tensor [tokens] per completion.
        actor_log_probs: Log-probabilities of the same tokens by the actor.
    """
    log_ratio = torch.cat(list(actor_log_probs)).double() - torch.cat(list(rollout_log_probs)).double()
    return float((torch.expm1(log_ratio) - log_ratio).mean())


def rollout_kl_limit(configured: float | None, dtype: str) -> float:
    """Bound of :func:`k3_kl` for a rollout dtype; 0 means no guard."""
    if configured is not None:
        return configured
    return FLOAT32_LIMIT if dtype in ("float32", "fp32", "float") else HALF_PRECISION_LIMIT


def check_rollout_kl(by_modality: Mapping[str, float], limit: float, step: int) -> None:
    """The rollout engine and the actor must agree on the log-probs of what was sampled.

    Raises:
        AdapterError: They do not: the rollout engine did not get the last weights, or not the audio that the actor got.
    """
    worst = max(by_modality, key=lambda name: by_modality[name])
    if limit and not by_modality[worst] <= limit:
        figures = ", ".join(f"{name} {value:.2e}" for name, value in sorted(by_modality.items()))
        raise AdapterError(
            f"step {step}: the rollout engine and the actor disagree about the completions: k3 KL {figures}, expected at "
            f"most {limit:.0e}. If {worst} alone is off, its inputs differ between the two (audio lost, or its placeholders "
            "expanded twice); if all are, the last weight push did not arrive. If the two are right and merely differ "
            "numerically, raise reward.custom_kwargs.max_rollout_kl (0 switches the guard off)."
        )
