"""Try it without a GPU: what stock verl and vLLM need to run a whole training on CPU cores.

verl has no CPU platform and vLLM's CPU build names and treats a few things differently. This package supplies the
platform through verl's registry and patches the rest, in processes that have ``VERL_PLATFORM=cpu`` in their environment
and in no others (vLLM's own processes: :mod:`tars_rewards.integration.vllm_plugin`). It is meant for tests, demos and
debugging, not for training models of a useful size.

``examples/verl/cpu.yaml`` has the configuration that goes with it.
"""

from __future__ import annotations

import os


def active() -> bool:
    """Whether this process was asked to run verl on CPU cores (``VERL_PLATFORM=cpu``)."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def activate() -> None:
    """Make verl run on CPU cores in this process, if :func:`active`."""
    if active():
        from tars_rewards_verl.cpu import attention, platform, vllm

        attention.install()
        platform.install()
        vllm.install_version()
