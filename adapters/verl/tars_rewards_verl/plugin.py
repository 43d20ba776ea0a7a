"""Loaded by ``import verl`` in every process, and by vLLM in every process of its own.

Imports nothing heavy: what it installs waits until the module it concerns is imported. verl swallows errors of its
plugins (it logs them at DEBUG level), so they are shown here first.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable


def install() -> None:
    """Install everything that a process of verl may need."""
    from tars_rewards_verl import audio, cpu, dispatch

    cpu.activate()
    audio.install()
    dispatch.install()


def register_vllm() -> None:
    """Entry point ``vllm.general_plugins``: called in every process of vLLM, with or without verl."""
    from tars_rewards_verl import audio, cpu

    _visibly(cpu.activate_vllm)
    _visibly(audio.install_vllm)


def _visibly(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:
        print("tars-rewards: could not be installed in this process:", file=sys.stderr)
        traceback.print_exc()
        raise


_visibly(install)
