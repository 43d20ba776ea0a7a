"""Puts our trainer mixin in front of the trainer class that verl selects, when ``reward.custom`` is set.

``verl.trainer.main_ppo`` asks ``verl.trainer.ppo.v1.get_trainer_cls`` for the class of a trainer mode. verl has no
public hook between that and its construction, so this function is wrapped: it returns a class that builds the stock
trainer unless the config names a reward. Wrapping the look-up, not the registry, covers trainers that other packages
register later.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from tars_rewards.integration.patching import after_import, check_signature, replace
from tars_rewards_verl.version import require_verl


def install() -> None:
    """Arrange for verl's trainer look-up and config validation to know ``reward.custom``."""
    after_import("verl.trainer.ppo.v1", _wrap_trainer_lookup)
    after_import("verl.utils.config", _wrap_validate_config)


def _wrap_trainer_lookup(module: ModuleType) -> None:
    stock_lookup = module.get_trainer_cls
    check_signature(stock_lookup, ["name"], "verl.trainer.ppo.v1.get_trainer_cls")

    @functools.wraps(stock_lookup)
    def get_trainer_cls(name: str) -> type:
        return selecting_class(stock_lookup(name))

    replace(module, "get_trainer_cls", get_trainer_cls)


@functools.cache
def selecting_class(stock: type) -> type:
    """A class whose construction gives a plain ``stock`` trainer, or one with TARS when the config asks for it."""

    def __new__(cls: type, config: Any) -> Any:
        from tars_rewards_verl.settings import enabled

        return compose_trainer(stock)(config=config) if enabled(config) else stock(config=config)

    return type(
        stock.__name__, (stock,), {"__new__": __new__, "__module__": stock.__module__, "__doc__": stock.__doc__}
    )


@functools.cache
def compose_trainer(stock: type) -> type:
    """``stock`` with :class:`tars_rewards_verl.trainer.TARSTrainerMixin` in front.

    Raises:
        UnsupportedConfigError: ``stock`` is not a synchronous v1 trainer.
    """
    from tars_rewards_verl.settings import check_trainer_class
    from tars_rewards_verl.trainer import TARSTrainerMixin

    check_trainer_class(stock)
    return type(f"TARS{stock.__name__}", (TARSTrainerMixin, stock), {"__module__": stock.__module__})


def _wrap_validate_config(module: ModuleType) -> None:
    """Refuse unsupported settings in the driver, before Ray starts."""
    stock_validate = module.validate_config
    check_signature(
        stock_validate, ["config", "use_reference_policy", "use_critic"], "verl.utils.config.validate_config"
    )

    @functools.wraps(stock_validate)
    def validate_config(config: Any, *args: Any, **kwargs: Any) -> None:
        from tars_rewards_verl.settings import check_config, enabled, prepare_config

        if enabled(config):
            require_verl()
            check_config(config)
            prepare_config(config)
        stock_validate(config, *args, **kwargs)

    replace(module, "validate_config", validate_config)
