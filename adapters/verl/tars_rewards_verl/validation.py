"""The validation metrics of a Speech LLM, from what verl's validation collected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tars_rewards.config import TARSConfig
from tars_rewards.errors import IncompletePairError
from tars_rewards.metrics import ModalityGap, modality_gap

_FILE = "tars_backbone.json"


class Backbone(NamedTuple):
    """Denominator of the modality recovery rate."""

    accuracy: float  #: in (0, 1], on text
    name: str  #: where it comes from, printed with the rate


def save_backbone(backbone: Backbone | None, checkpoint: Path) -> None:
    """Keep the denominator with a checkpoint of verl's (its ``global_step_N``), so that a resumed run divides by it too."""
    if backbone is not None:
        (checkpoint / _FILE).write_text(json.dumps(backbone._asdict()) + "\n")


def load_backbone(checkpoint: Path) -> Backbone | None:
    """What :func:`save_backbone` kept with a checkpoint; None if nothing."""
    file = checkpoint / _FILE
    return Backbone(**json.loads(file.read_text())) if file.exists() else None


def validation_gap(
    infos: Mapping[str, Sequence[Any]], *, expected: int, config: TARSConfig, backbone: Backbone | None
) -> ModalityGap:
    """Accuracy by modality, gap, modality recovery rate and own-text ratio.

    Args:
        infos: verl's ``reward_extra_infos_dict``: columns ``acc`` and ``modality`` of all validation completions.
        expected: Validation completions that were asked for.
        config: Names the modalities.
        backbone: Denominator of the modality recovery rate; None: the model's own text accuracy.

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
