"""Rewards over HTTP: ``tars-rewards serve``, or from Python.

==============  ============================================================================================
``settings``    `ServerSettings`: where it listens, who may ask, how much it takes on
``process``     `run`: the server as a process
``app``         `create_app`: the routes as an ASGI application
``service``     loading, ready, stopping; the way of a request
``queue``       what waits, in bounds, and what is scored together
``worker``      the one thread that owns the scorer
``body``        bodies under their limits; deadlines and clients that go away
``questions``   ``POST /v1/rewards``: questions, by upload only
``openrlhf``    ``POST /reward``: what OpenRLHF's ``--reward.remote_url`` speaks
``refusal``     errors, in one form
==============  ============================================================================================

Example::

    from tars_rewards import Scorer, TARSConfig
    from tars_rewards.server import ServerSettings, run

    run(lambda: Scorer("Qwen/Qwen2.5-Omni-7B", config=TARSConfig(alpha=1.0)), ServerSettings(port=8000))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tars_rewards.errors import MissingDependencyError
from tars_rewards.server.settings import ServerSettings

if TYPE_CHECKING:
    from tars_rewards.server.app import create_app
    from tars_rewards.server.process import run

__all__ = ["ServerSettings", "create_app", "run"]

_HOME = {"create_app": "app", "run": "process"}
_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "soundfile")


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in _NEEDED:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingDependencyError(
                f"the server needs {package}, which is not installed: pip install 'tars-rewards[serve]'"
            ) from error
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
