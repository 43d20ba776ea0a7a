"""Makes ``reward.custom`` and ``reward.custom_kwargs.*`` legal keys of verl's config, with verl's stock entry point.

verl composes its config from ``verl/trainer/config``; a key that is not declared there is refused by Hydra. This plugin
puts one more config source in front of verl's: it serves a single file, ``reward/reward.yaml``, which is verl's own
file as installed plus the two keys. Nothing of verl's config is copied or fixed to a version.

A mistake here would break every verl run of the environment, so the plugin does nothing unless the program being
configured is verl's.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

_CONFIG = "reward/reward.yaml"


class TARSConfigSource(ConfigSource):
    """Serves verl's ``reward/reward.yaml`` with ``custom`` and ``custom_kwargs`` declared."""

    @staticmethod
    def scheme() -> str:
        """Scheme of the search path entries that this source serves."""
        return "tars"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read verl's reward config and declare our keys with their defaults."""
        if self._normalize_file_name(config_path) != _CONFIG:
            raise ConfigLoadError(f"tars-rewards serves {_CONFIG} only, not {config_path}")
        from tars_rewards.config import TARSConfig
        from tars_rewards_verl.options import VerlOptions

        text = importlib.resources.files("verl.trainer.config").joinpath(_CONFIG).read_text()
        config = OmegaConf.create(text)
        config["custom"] = None
        config["custom_kwargs"] = {
            field.name: _plain(field.default)
            for owner in (TARSConfig, VerlOptions)
            for field in dataclasses.fields(owner)
        }
        return ConfigResult(
            config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header={"package": None}
        )

    def available(self) -> bool:
        """Whether the source can be read."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether ``config_path`` is a group of this source."""
        return config_path in ("", "reward")

    def is_config(self, config_path: str) -> bool:
        """Whether ``config_path`` is the one config of this source."""
        return bool(self._normalize_file_name(config_path) == _CONFIG)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names below ``config_path``."""
        names = {"": ["reward"], "reward": ["reward"]}
        return names.get(config_path, [])


class TARSSearchPath(SearchPathPlugin):
    """Puts :class:`TARSConfigSource` in front of verl's own config directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Prepend our source when, and only when, Hydra configures a verl trainer."""
        for entry in search_path.get_path():
            if entry.provider == "main" and "verl" in (entry.path or "") and "config" in (entry.path or ""):
                search_path.prepend(provider="tars-rewards", path=f"{TARSConfigSource.scheme()}://reward")
                return


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
