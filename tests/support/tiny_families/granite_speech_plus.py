"""Granite Speech Plus: Granite Speech whose projector sees a middle layer of the conformer too."""

from __future__ import annotations

from pathlib import Path

from tiny_families import granite_speech
from tiny_parts import has_model

NAME = "granite_speech_plus"
MODEL_TYPE = "granite_speech_plus"


def available() -> bool:
    return has_model("granite_speech_plus")


def make(directory: Path) -> Path:
    from transformers import (
        GraniteSpeechPlusConfig,
        GraniteSpeechPlusEncoderConfig,
        GraniteSpeechPlusForConditionalGeneration,
    )

    tokenizer = granite_speech.make_processor(directory)
    encoder = GraniteSpeechPlusEncoderConfig(**granite_speech.encoder_sizes(), cat_hidden_layers=[1])
    config = GraniteSpeechPlusConfig(
        encoder_config=encoder, **granite_speech.other_parts(tokenizer, 2 * granite_speech.ENCODER_WIDTH)
    )
    granite_speech.save_with_adapter(GraniteSpeechPlusForConditionalGeneration, config, directory)
    return directory


reference, prepare = granite_speech.reference, granite_speech.prepare
