"""Loaded by ``import verl`` in every process."""


def register_vllm() -> None:
    """Entry point ``vllm.general_plugins``."""
