"""The validation metrics of a Speech LLM, from what verl's validation collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tars_rewards.errors import IncompletePairError


def accuracy_by_modality(infos: Mapping[str, Sequence[Any]], expected: int) -> tuple[dict[str, float], int]:
    """Mean accuracy of each modality, and how many completions came.

    Args:
        infos: verl's ``reward_extra_infos_dict``: columns ``acc`` and ``modality`` of all validation completions.
        expected: Validation completions that were asked for.

    Raises:
        IncompletePairError: Completions are missing.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for modality, correct in zip(infos.get("modality", ()), infos.get("acc", ()), strict=True):
        scores[modality].append(float(correct))
    came = sum(map(len, scores.values()))
    if came != expected:
        raise IncompletePairError(
            f"validation expected {expected} completions, got {came}; verl drops a completion whose generation or reward "
            "raised: its traceback stands above in the log, after 'Error in _run_prompt'"
        )
    return {modality: sum(values) / len(values) for modality, values in scores.items()}, came
