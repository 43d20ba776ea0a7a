"""Audio Flamingo 3: a Whisper encoder with pooling in front of a Qwen2 model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_parts import SIZES, has_model, make_tokenizer

NAME = "audioflamingo3"
MODEL_TYPE = "audioflamingo3"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"]
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'audio' %}<sound>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MELS = 32


def available() -> bool:
    return has_model("audioflamingo3")


def make(directory: Path) -> Path:
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Processor

    tokenizer = make_processor(directory, AudioFlamingo3Processor)
    save(AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Config(**parts(tokenizer)), directory)
    return directory


def make_processor(directory: Path, processor_class: Any, marks: Sequence[str] = ()) -> Any:
    """Write the processor; returns its tokenizer."""
    from transformers import WhisperFeatureExtractor

    tokenizer = make_tokenizer([*SPECIAL, *marks], eos="<|im_end|>", pad="<|endoftext|>", template=TEMPLATE)
    extractor = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16000, chunk_length=30)
    processor_class(extractor, tokenizer, chat_template=TEMPLATE).save_pretrained(directory)
    return tokenizer


def parts(tokenizer: Any) -> dict[str, Any]:
    """What the config of the whole is made of."""
    from transformers import AudioFlamingo3EncoderConfig, Qwen2Config

    return {
        "audio_config": AudioFlamingo3EncoderConfig(
            num_mel_bins=MELS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_source_positions=1500,
        ),
        "text_config": Qwen2Config(
            **SIZES,
            vocab_size=len(tokenizer),
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        "audio_token_id": tokenizer.convert_tokens_to_ids("<sound>"),
    }


def save(model_class: Any, config: Any, directory: Path) -> None:
    """Random weights that tell clips apart."""
    import torch

    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        model.model.audio_tower.conv1.weight *= 10
        model.model.multi_modal_projector.linear_1.weight *= 10
        model.model.multi_modal_projector.linear_2.weight *= 10
    model.save_pretrained(directory)
