"""Options of the framework adapters, besides those of the reward (`TARSConfig`)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError
from tars_rewards.terms import check_terms, own_weights, term_name


@dataclass(frozen=True)
class AdapterOptions:
    """What an adapter needs to know that the reward does not.

    Raises:
        ConfigError: A value is out of range.
    """

    max_rollout_kl: float | None = None
    """The run stops when the K3 estimate of KL(rollout || actor), mean over the completion tokens of one modality,
    exceeds this. 0: no guard. None: 1e-4 where both compute in float32; in half precision 2e-2, and after three steps
    also ten times what these had (at least 1e-3)."""
    text_backbone_accuracy: float | None = None
    """Accuracy in (0, 1] of the original text backbone, the denominator of the modality recovery rate in validation.
    None: the model's own accuracy on text, before training where that is known."""
    run_log: str | None = None
    """Directory for what `tars-rewards report` needs of the run: rollouts with their rewards, metrics, settings. A
    resumed run goes on with it. None: none."""
    run_log_rate: float = 0.05
    """Share of the questions of every step whose rollouts are written there, in (0, 1]; always whole pairs."""

    def __post_init__(self) -> None:
        if self.max_rollout_kl is not None and not self.max_rollout_kl >= 0:
            raise ConfigError(f"max_rollout_kl must be 0 (no guard), positive or null, got {self.max_rollout_kl}")
        if self.text_backbone_accuracy is not None and not 0 < self.text_backbone_accuracy <= 1:
            raise ConfigError(
                f"text_backbone_accuracy must be an accuracy in (0, 1] or null, got {self.text_backbone_accuracy}; "
                "divide a percentage by 100"
            )
        if self.run_log is not None and (
            not isinstance(self.run_log, str | os.PathLike) or not os.fspath(self.run_log)
        ):
            raise ConfigError(f"run_log must be a directory or null, got {self.run_log!r}")
        if isinstance(self.run_log, os.PathLike):
            object.__setattr__(self, "run_log", os.fspath(self.run_log))
        rate = self.run_log_rate
        if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate <= 1:
            raise ConfigError(
                f"run_log_rate must be a share of the questions in (0, 1], got {rate!r}; to write none leave run_log out"
            )


Options = TypeVar("Options", bound=AdapterOptions)


def split_settings(settings: Mapping[str, Any], options: type[Options]) -> tuple[TARSConfig, Options]:
    """Divide a user's settings between the reward's config and the adapter's options.

    Args:
        settings: Settings by name.
        options: The adapter's class of options.

    Raises:
        ConfigError: A setting belongs to neither, a value is bad, or a term of the user's own cannot be found.
    """
    names = {field.name for field in dataclasses.fields(options)}
    ours = options(**{key: value for key, value in settings.items() if key in names})
    config = TARSConfig.from_mapping({key: value for key, value in settings.items() if key not in names})
    check_terms(own_weights(config.terms))  # now, not after the framework has started everything else
    return config, ours


def describe(config: TARSConfig) -> str:
    """Which terms, layers, weights and embedder are in force, in one line for the start of a run."""
    extractor = "" if config.answer_extractor == "tags" else f" (answers by {config.answer_extractor})"
    base = f"accuracy{extractor} + {config.format_weight:g} x format"
    representation = (
        f"{config.alpha:g} x representation (layers {config.layers})" if config.alpha else "no representation"
    )
    embedder = config.embedder + (f" at {config.embedder_url}" if config.embedder_url else "")
    behavior = f"{config.beta:g} x behavior (embedder {embedder})" if config.beta else "no behavior"
    own = "".join(f" + {weight:g} x {term_name(term)}" for term, weight in own_weights(config.terms) if weight)
    return (
        f"{config.target_modality} = {base} + {representation} + {behavior}{own}; {config.anchor_modality} = {base}; "
        f"seed {config.seed}"
    )
