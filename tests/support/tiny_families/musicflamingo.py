"""Music Flamingo: Audio Flamingo 3 with positions in time on what the encoder hears, and marks around a clip."""

from __future__ import annotations

from pathlib import Path

from tiny_families import audioflamingo3
from tiny_parts import has_model

NAME = "musicflamingo"
MODEL_TYPE = "musicflamingo"
MARKS = ["<|sound_bos|>", "<|sound_eos|>"]


def available() -> bool:
    return has_model("musicflamingo")


def make(directory: Path) -> Path:
    from transformers import MusicFlamingoConfig, MusicFlamingoForConditionalGeneration, MusicFlamingoProcessor

    tokenizer = audioflamingo3.make_processor(directory, MusicFlamingoProcessor, MARKS)
    bos, eos = tokenizer.convert_tokens_to_ids(MARKS)
    config = MusicFlamingoConfig(**audioflamingo3.parts(tokenizer), audio_bos_token_id=bos, audio_eos_token_id=eos)
    audioflamingo3.save(MusicFlamingoForConditionalGeneration, config, directory)
    return directory
