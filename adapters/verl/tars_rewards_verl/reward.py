"""The class that ``reward.custom`` names."""

from __future__ import annotations

import importlib
from typing import Any

from tars_rewards.errors import ConfigError
from tars_rewards.integration.options import split_settings
from tars_rewards.reward import TARSReward as CoreReward
from tars_rewards_verl.options import VerlOptions


class TARSReward(CoreReward):
    """TARS reward built from ``reward.custom_kwargs``.

    Where ``embedder_device`` is not set the embedder runs on the CPU: the reward workers see the GPUs, and would all load
    it onto the first one, beside the policy.

    To change or extend the reward, subclass it and name the subclass in ``reward.custom``; it is built in verl's reward
    workers (base reward, embeddings) and in the trainer (final reward).

    Args:
        **kwargs: Fields of :class:`tars_rewards.TARSConfig` and of :class:`tars_rewards_verl.options.VerlOptions`.

    Raises:
        ConfigError: An unknown key, or a value out of its range.
    """

    options: VerlOptions

    def __init__(self, **kwargs: Any) -> None:
        device = kwargs.get("embedder_device") or "cpu"
        config, self.options = split_settings({**kwargs, "embedder_device": device}, VerlOptions)
        if self.options.finaliser_workers and config.terms:
            raise ConfigError(
                f"finaliser_workers={self.options.finaliser_workers} leaves the hidden states in other processes, where terms "
                "of your own (terms) do not see them; set it to 0"
            )
        super().__init__(config)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "options": self.options}


def load_reward(spec: str, kwargs: dict[str, Any]) -> TARSReward:
    """Build the reward that ``reward.custom`` names.

    Args:
        spec: ``module:Class``.
        kwargs: ``reward.custom_kwargs``.

    Raises:
        ConfigError: ``spec`` is malformed, cannot be imported, or does not name a :class:`TARSReward` class.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ConfigError(f"reward.custom must be 'module:Class', got {spec!r}; use tars_rewards.verl:TARSReward")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"reward.custom={spec}: cannot import it ({error}); use tars_rewards.verl:TARSReward"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, TARSReward)):
        raise ConfigError(f"reward.custom={spec} is not a subclass of tars_rewards.verl.TARSReward, but {cls!r}")
    return cls(**kwargs)
