"""Whether verl has loaded the adapter in the present process: verl says nothing when it has not."""

from __future__ import annotations

import os
import sys

from tars_rewards.errors import AdapterError

ENTRY_POINT = "tars_rewards"
"""Name of the adapter's entry point in the group ``verl.plugins``."""
_POLICY = "VERL_USE_EXTERNAL_PLUGINS"


def why_not_loaded() -> str | None:
    """What kept verl from loading the adapter, and what to do; None if it has, or if verl was not imported."""
    if "tars_rewards_verl.plugin" in sys.modules or "verl" not in sys.modules:
        return None
    policy = os.environ.get(_POLICY, "auto").strip()
    if policy.lower() != "auto" and ENTRY_POINT not in (name.strip().lower() for name in policy.split(",")):
        return f"{_POLICY}={policy} keeps verl from loading tars-rewards; unset it or add {ENTRY_POINT} to it"
    return (
        "tars-rewards failed when verl loaded it; its error stands above in the log, after 'tars-rewards: could not be "
        "installed in this process'"
    )


def require_loaded() -> None:
    """Raise if verl has not loaded the adapter in this process.

    Raises:
        AdapterError: Says why, and what to do.
    """
    reason = why_not_loaded()
    if reason:
        raise AdapterError(f"reward.custom is set, but {reason}")
