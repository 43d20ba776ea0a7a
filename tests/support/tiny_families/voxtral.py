"""Voxtral: a Whisper encoder in front of a Mistral model, with Mistral's own tokenizer."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from tiny_parts import SIZES, has_model

NAME = "voxtral"
MODEL_TYPE = "voxtral"
SYSTEM_TURN = False  # not with a clip, in tokenizers of this version
# Ids as in the published file: transformers counts on [AUDIO] being 24.
SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    34: "[TRANSCRIBE]",
}
SPECIALS, BYTES = 40, 256
PATTERN = r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
MELS = 128


def available() -> bool:
    return has_model("voxtral")


def make(directory: Path) -> Path:
    import torch
    from transformers import (
        LlamaConfig,
        VoxtralConfig,
        VoxtralEncoderConfig,
        VoxtralForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    directory.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(directory / "tekken.json")
    WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16000, chunk_length=30).save_pretrained(directory)
    config = VoxtralConfig(
        audio_config=VoxtralEncoderConfig(
            num_mel_bins=MELS,
            hidden_size=32,
            intermediate_size=128,  # four frames side by side are one vector
            num_hidden_layers=2,
            num_attention_heads=2,
            max_source_positions=1500,
        ),
        text_config=LlamaConfig(
            **SIZES,
            vocab_size=SPECIALS + BYTES,
            head_dim=16,
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=11,
            tie_word_embeddings=False,
        ),
        audio_token_id=24,
    )
    torch.manual_seed(0)
    model = VoxtralForConditionalGeneration(config)
    with torch.no_grad():
        model.model.audio_tower.conv1.weight *= 10
        model.model.multi_modal_projector.linear_1.weight *= 10
        model.model.multi_modal_projector.linear_2.weight *= 10
    model.save_pretrained(directory)
    return directory


def _write_tokenizer(path: Path) -> None:
    """A tekken file whose vocabulary is the bytes: every text can be written, and nothing has to be learned."""
    special = [
        {"rank": rank, "token_str": SPECIAL.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
        for rank in range(SPECIALS)
    ]
    vocabulary = [
        {
            "rank": byte,
            "token_bytes": base64.b64encode(bytes([byte])).decode(),
            "token_str": chr(byte) if byte < 128 else None,
        }
        for byte in range(BYTES)
    ]
    content = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": BYTES,
            "default_vocab_size": SPECIALS + BYTES,
            "default_num_special_tokens": SPECIALS,
            "version": "v7",
        },
        "vocab": vocabulary,
        "special_tokens": special,
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": MELS, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
    path.write_text(json.dumps(content))


def reference(directory: Path, text: str, clip: Any | None) -> Any:
    import soundfile
    from transformers import AutoProcessor

    content = []
    if clip is not None:
        file = io.BytesIO()
        soundfile.write(file, clip, 16000, format="WAV", subtype="FLOAT")
        content = [{"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    return AutoProcessor.from_pretrained(directory).apply_chat_template([turn])
