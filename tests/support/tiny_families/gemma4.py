"""Gemma 4 as it is published in the small sizes: a conformer for audio, a vision tower, embeddings for each layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_parts import has_model, make_tokenizer

NAME = "gemma4"
MODEL_TYPE = "gemma4"
NAMED = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", *NAMED.values(), "<|video|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio|>{% elif part['type'] == 'image' %}<|image|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)
WIDTH = 32


def available() -> bool:
    return has_model("gemma4")


def make(directory: Path) -> Path:
    from transformers import (
        Gemma4AudioConfig,
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4TextConfig,
        Gemma4VisionConfig,
    )

    tokenizer = make_processor(directory, Gemma4AudioFeatureExtractor(), "Gemma4Processor")
    config = Gemma4Config(
        text_config=Gemma4TextConfig(
            **text_sizes(tokenizer),
            vocab_size_per_layer_input=len(tokenizer),
            hidden_size_per_layer_input=16,
            global_head_dim=32,
        ),
        audio_config=Gemma4AudioConfig(
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            subsampling_conv_channels=[128, 8],  # the first is taken for the number of mel bins too
            output_proj_dims=WIDTH,
            use_clipped_linears=False,
        ),
        vision_config=Gemma4VisionConfig(
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            position_embedding_size=64,
        ),
        **token_ids(tokenizer),
    )
    save(Gemma4ForConditionalGeneration, config, tokenizer, directory)
    return directory


def make_processor(directory: Path, extractor: Any, processor_class: str) -> Any:
    """The processor's files; its stock class cannot be imported without torchvision, so they are written by hand."""
    tokenizer = make_tokenizer(SPECIAL, eos="<eos>", bos="<bos>", pad="<pad>", template=TEMPLATE, named=NAMED)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(directory)
    content = {"processor_class": processor_class, "feature_extractor": extractor.to_dict()}
    (directory / "processor_config.json").write_text(json.dumps(content, default=lambda array: array.tolist()))
    return tokenizer


def text_sizes(tokenizer: Any) -> dict[str, Any]:
    token = tokenizer.convert_tokens_to_ids
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": len(tokenizer),
        # As in the published models, the last layers take keys and values from earlier ones of their kind.
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": token("<eos>"),
        "pad_token_id": token("<pad>"),
        "bos_token_id": token("<bos>"),
    }


def token_ids(tokenizer: Any) -> dict[str, int]:
    token = tokenizer.convert_tokens_to_ids
    return {
        "boi_token_id": token("<|image>"),
        "eoi_token_id": token("<image|>"),
        "image_token_id": token("<|image|>"),
        "video_token_id": token("<|video|>"),
        "boa_token_id": token("<|audio>"),
        "eoa_token_index": token("<audio|>"),
        "audio_token_id": token("<|audio|>"),
    }


def save(model_class: Any, config: Any, tokenizer: Any, directory: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A conformer initialised at random says nearly the same of every clip.
            if "audio_tower" in name and parameter.ndim > 1:
                parameter *= 5
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(["<eos>", "<turn|>"])
    model.save_pretrained(directory)


def reference(directory: Path, text: str, clip: Any | None) -> Any:
    """By the parts of the processor that need no torchvision, and what it does with their output."""
    return by_parts(directory, text, clip, lambda mask: (len(mask) + 3) // 4)


def by_parts(directory: Path, text: str, clip: Any | None, vectors: Callable[[Any], int]) -> Any:
    from transformers import AutoFeatureExtractor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    content = [] if clip is None else [{"type": "audio"}]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    prompt = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    features = {}
    if clip is not None:
        features = AutoFeatureExtractor.from_pretrained(directory)([clip], return_tensors="pt")
        placeholders = "<|audio|>" * vectors(features["input_features_mask"][0].nonzero())
        prompt = prompt.replace("<|audio|>", f"<|audio>{placeholders}<audio|>")
    return {**tokenizer(prompt, add_special_tokens=False, return_tensors="pt"), **features}
