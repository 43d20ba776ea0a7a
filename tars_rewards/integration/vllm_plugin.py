"""Entry point ``vllm.general_plugins``: called in every process of vLLM, whatever framework started it.

Speech models take pushed weights by the names that trainers have; and on CPU cores, where an adapter was asked to run
without a GPU, weights stay where a push can write them.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING

from tars_rewards.integration.patching import after_import, check_signature

if TYPE_CHECKING:
    import torch

CPU_SWITCHES = ("VERL_PLATFORM", "TARS_OPENRLHF_PLATFORM")
"""Environment variables of which one is ``cpu`` where an adapter was asked to run without a GPU."""


def register() -> None:
    """Arrange for vLLM's modules to be patched when they are imported."""
    try:
        from tars_rewards.speech import vllm_models

        if any(os.environ.get(name, "").strip().lower() == "cpu" for name in CPU_SWITCHES):
            after_import("vllm.model_executor.layers.utils", _plain_gemm)
        vllm_models.install()
    except Exception:
        # vLLM logs errors of its plugins and goes on.
        print("tars-rewards: could not be installed in this process:", file=sys.stderr)
        traceback.print_exc()
        raise


def _plain_gemm(module: ModuleType) -> None:
    """Keep linear layers as plain matrices.

    vLLM's CPU build packs the weights of a linear layer for its own GEMM when it loads a model and drops the parameter;
    a weight push would find nothing to write to.
    """
    name = "dispatch_cpu_unquantized_gemm"
    check_signature(getattr(module, name), ["layer", "remove_weight"], f"{module.__name__}.{name}")

    def dispatch_cpu_unquantized_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        from torch.nn.functional import linear

        layer.cpu_linear = linear  # type: ignore[assignment]

    setattr(module, name, dispatch_cpu_unquantized_gemm)
