"""Qwen2.5-Omni as it is published, without talker and vocoder; its Thinker is what is loaded."""

from __future__ import annotations

from pathlib import Path

from tiny_models import make_qwen2_5_omni

NAME = "qwen2_5_omni"
MODEL_TYPE = "qwen2_5_omni"


def available() -> bool:
    return True


def processor(directory: Path):
    """The stock one asks for torchvision before it looks at its arguments."""
    from tars_rewards.speech.omni_processors import OmniProcessorWithoutVideo

    return OmniProcessorWithoutVideo.from_pretrained(directory)


def make(directory: Path) -> Path:
    return make_qwen2_5_omni(directory)
