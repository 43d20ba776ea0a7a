"""Looking settings up in verl's config, and refusing them by their key."""

from __future__ import annotations

from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from tars_rewards.errors import UnsupportedConfigError


def setting(config: DictConfig, key: str, default: Any = None) -> Any:
    """Value of a dotted key; ``default`` where it is absent or null."""
    found = OmegaConf.select(config, key)
    return default if found is None else found


def refuse(config: DictConfig, key: str, why: str) -> NoReturn:
    """Refuse a setting.

    Args:
        config: verl's trainer config.
        key: Dotted key of the setting.
        why: Why TARS cannot train under it, and what to set instead.

    Raises:
        UnsupportedConfigError: Names the key, its value and ``why``.
    """
    raise UnsupportedConfigError(
        f"reward.custom={setting(config, 'reward.custom')} cannot run with {key}={setting(config, key)}: {why}"
    )
