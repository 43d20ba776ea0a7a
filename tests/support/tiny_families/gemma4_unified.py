"""Gemma 4 without encoders: frames of the clip itself are projected into the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_families import gemma4
from tiny_parts import has_model

NAME = "gemma4_unified"
MODEL_TYPE = "gemma4_unified"
ENCODER = "model.embed_audio"


def available() -> bool:
    return has_model("gemma4_unified")


def make(directory: Path) -> Path:
    from transformers import (
        Gemma4UnifiedAudioConfig,
        Gemma4UnifiedAudioFeatureExtractor,
        Gemma4UnifiedConfig,
        Gemma4UnifiedForConditionalGeneration,
        Gemma4UnifiedTextConfig,
        Gemma4UnifiedVisionConfig,
    )

    tokenizer = gemma4.make_processor(directory, Gemma4UnifiedAudioFeatureExtractor(), "Gemma4UnifiedProcessor")
    config = Gemma4UnifiedConfig(
        text_config=Gemma4UnifiedTextConfig(**gemma4.text_sizes(tokenizer), global_head_dim=32),
        audio_config=Gemma4UnifiedAudioConfig(),
        vision_config=Gemma4UnifiedVisionConfig(mm_embed_dim=gemma4.WIDTH, mm_posemb_size=16),
        **gemma4.token_ids(tokenizer),
    )
    gemma4.save(Gemma4UnifiedForConditionalGeneration, config, tokenizer, directory)
    return directory


def reference(directory: Path, text: str, clip: Any | None) -> Any:
    return gemma4.by_parts(directory, text, clip, len)
