"""The validation metrics of a Speech LLM, from what verl's validation collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tars_rewards.config import TARSConfig
from tars_rewards.errors import IncompletePairError
from tars_rewards.metrics import ModalityGap, modality_gap


def validation_gap(
    infos: Mapping[str, Sequence[Any]], *, expected: int, config: TARSConfig, backbone: tuple[float, str] | None
) -> ModalityGap:
    """Accuracy by modality, gap, modality recovery rate and own-text ratio.

    Args:
        infos: verl's ``reward_extra_infos_dict``: columns ``acc`` and ``modality`` of all validation completions.
        expected: Validation completions that were asked for.
        config: Names the modalities.
        backbone: Denominator of the modality recovery rate and its name; None: the model's own text accuracy.

    Raises:
        IncompletePairError: Completions are missing.
    """
    correct, modalities = list(infos.get("acc", ())), list(infos.get("modality", ()))
    if len(correct) != expected or len(modalities) != expected:
        raise IncompletePairError(
            f"validation expected {expected} completions, got {len(correct)}; verl drops a completion whose generation or "
            "reward raised: its traceback stands above in the log, after 'Error in _run_prompt'"
        )
    accuracy, name = backbone if backbone is not None else (None, "")
    return modality_gap(
        [bool(value) for value in correct],
        modalities,
        backbone_accuracy=accuracy or None,
        backbone_name=name,
        target_modality=config.target_modality,
        anchor_modality=config.anchor_modality,
    )
