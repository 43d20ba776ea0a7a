"""Makes ``reward.custom`` and ``reward.custom_kwargs.*`` legal keys of verl's config, with verl's stock entry point.

verl composes its config from ``verl/trainer/config``; a key that is not declared there is refused by Hydra. This plugin
puts one more config source in front of verl's: it serves a single file, ``reward/reward.yaml``, which is verl's own
file as installed plus the two keys. Nothing of verl's config is copied or fixed to a version.

A mistake here would break every verl run of the environment, so the plugin does nothing unless the program being
configured is verl's trainer.

Where verl has not loaded the adapter, it would ignore ``reward.custom`` without a word: the key is then declared as one
that cannot be set, and says why.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import importlib.util
import os
import sys
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf, StringNode
from omegaconf.errors import ValidationError

_CONFIG = "reward/reward.yaml"
_PROGRAM = "verl.trainer.main_ppo"


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
        from tars_rewards_verl.loaded import why_not_loaded
        from tars_rewards_verl.options import VerlOptions

        text = importlib.resources.files("verl.trainer.config").joinpath(_CONFIG).read_text()
        config = OmegaConf.create(text)
        reason = why_not_loaded()
        config["custom"] = _Refusing(f"reward.custom cannot be set: {reason}") if reason else None
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
        """Add our source when, and only when, Hydra configures verl's trainer."""
        ours = {"provider": "tars-rewards", "path": f"{TARSConfigSource.scheme()}://reward"}
        if any(entry.provider == "main" and _is_verls_config(entry.path) for entry in search_path.get_path()):
            search_path.prepend(**ours)
        elif _runs_verls_trainer():
            # The user's own directory (--config-path), which keeps its precedence; verl's follows by hydra.searchpath.
            search_path.append(**ours)


def _verls_file(*parts: str) -> str | None:
    spec = importlib.util.find_spec("verl")
    locations = (spec.submodule_search_locations if spec else None) or []
    return next((os.path.realpath(os.path.join(location, *parts)) for location in locations), None)


def _is_verls_config(path: str) -> bool:
    if path.startswith("pkg://"):
        return path.removeprefix("pkg://").replace("/", ".").strip(".") == "verl.trainer.config"
    return os.path.realpath(path.removeprefix("file://")) == _verls_file("trainer", "config")


def _runs_verls_trainer() -> bool:
    """Whether the program is verl's trainer, or one that has imported it to call it."""
    if _PROGRAM in sys.modules:
        return True
    main = sys.modules.get("__main__")
    if getattr(getattr(main, "__spec__", None), "name", None) == _PROGRAM:
        return True
    file = getattr(main, "__file__", None)
    return bool(file) and os.path.realpath(file) == _verls_file("trainer", "main_ppo.py")


class _Refusing(StringNode):  # type: ignore[misc]  # its base is untyped
    """A null that cannot be set to anything else, on the command line or in a file."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        super().__init__()

    def _set_value(self, value: Any, flags: dict[str, bool] | None = None) -> None:
        if value is not None:
            raise ValidationError(self._reason)
        super()._set_value(value, flags)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Refusing:
        copy = _Refusing(self._reason)
        self._deepcopy_impl(copy, memo)
        return copy


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
