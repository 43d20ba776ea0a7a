"""Imported by verl in its workers (``actor_rollout_ref.model.external_lib``) before they build an engine.

The trainer puts this module's name into the config, so a node that lacks the package stops with an import error
instead of training without TARS.
"""

from __future__ import annotations

import functools

from verl.workers.engine.base import EngineRegistry

from tars_rewards.integration.patching import check_signature
from tars_rewards_verl import weight_push
from tars_rewards_verl.engine import compose_engine
from tars_rewards_verl.loaded import require_loaded
from tars_rewards_verl.version import require_verl


def _wrap_engine_lookup() -> None:
    stock_lookup = EngineRegistry.get_engine_cls
    check_signature(stock_lookup, ["model_type", "backend"], "verl EngineRegistry.get_engine_cls")

    # The look-up is wrapped, not the registry, so that engines registered later by other packages are covered.
    @functools.wraps(stock_lookup)
    def get_engine_cls(model_type: str, backend: str) -> type:
        return compose_engine(stock_lookup(model_type, backend))

    EngineRegistry.get_engine_cls = staticmethod(get_engine_cls)


require_loaded()
_wrap_engine_lookup()
weight_push.install()
require_verl()
