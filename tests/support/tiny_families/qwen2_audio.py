"""Qwen2-Audio: a Whisper encoder with a window of 30 s in front of a Qwen2 model."""

from __future__ import annotations

from pathlib import Path

from tiny_models import make_qwen2_audio

NAME = "qwen2_audio"
MODEL_TYPE = "qwen2_audio"


def available() -> bool:
    return True


def make(directory: Path) -> Path:
    return make_qwen2_audio(directory)
