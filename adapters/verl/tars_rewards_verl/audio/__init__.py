"""Speech models in stock verl and vLLM."""


def install() -> None:
    """Later."""


def install_vllm() -> None:
    """Later."""
