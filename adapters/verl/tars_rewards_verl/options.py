"""Options of the verl adapter, besides those of the reward (:class:`tars_rewards.config.TARSConfig`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError


@dataclass(frozen=True)
class VerlOptions:
    """What the adapter needs to know that the reward does not.

    Attributes:
        max_rollout_kl: The run stops when the K3 estimate of KL(rollout || actor), mean over the completion tokens of
            one modality, exceeds this. ``None``: 1e-4 for a float32 rollout, 2e-2 for half precision. ``0``: no guard.
        weight_push_deadline: Seconds that one message of a weight push to vLLM may take before the run is stopped.
        text_backbone_accuracy: Accuracy in [0, 1] of the original text backbone, the denominator of the modality
            recovery rate. ``None``: the model's own text accuracy at the validation before training.
    """

    max_rollout_kl: float | None = None
    weight_push_deadline: float = 300.0
    text_backbone_accuracy: float | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.max_rollout_kl is not None and self.max_rollout_kl < 0:
            raise ConfigError(f"max_rollout_kl must be 0 (no guard), positive or null, got {self.max_rollout_kl}")
        if self.weight_push_deadline <= 0:
            raise ConfigError(
                f"weight_push_deadline must be a positive number of seconds, got {self.weight_push_deadline}"
            )
        if self.text_backbone_accuracy is not None and not 0 < self.text_backbone_accuracy <= 1:
            raise ConfigError(
                f"text_backbone_accuracy must be an accuracy in (0, 1] or null, got {self.text_backbone_accuracy}; "
                "divide a percentage by 100"
            )


def split_kwargs(kwargs: Mapping[str, Any]) -> tuple[TARSConfig, VerlOptions]:
    """Divide ``reward.custom_kwargs`` between the reward's config and the adapter's options.

    Raises:
        ConfigError: A key belongs to neither.
    """
    names = {field.name for field in dataclasses.fields(VerlOptions)}
    options = VerlOptions(**{key: value for key, value in kwargs.items() if key in names})
    rest = {key: value for key, value in kwargs.items() if key not in names}
    return TARSConfig.from_mapping(rest), options
