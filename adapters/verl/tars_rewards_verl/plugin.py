"""Loaded by ``import verl`` in every process.

Imports nothing heavy: what it installs waits until the module it concerns is imported. verl swallows errors of its
plugins (it logs them at DEBUG level), so they are shown here first.
"""

from __future__ import annotations

import sys
import traceback


def install() -> None:
    """Install everything that a process of verl may need."""
    from tars_rewards_verl import audio, cpu, dispatch, lora, weight_push

    cpu.activate()
    audio.install()
    dispatch.install()
    lora.install()
    weight_push.install_server()


try:
    install()
except Exception:
    print("tars-rewards: could not be installed in this process:", file=sys.stderr)
    traceback.print_exc()
    raise
