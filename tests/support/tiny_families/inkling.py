"""Inkling: bins of the clip's spectrum are tokens of their own, in front of a mixture of experts with short convolutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_parts import has_model, make_tokenizer

NAME = "inkling"
MODEL_TYPE = "inkling_mm_model"
ENCODER = "model.audio_tower"
SPECIAL = [
    "<|pad|>",
    "<|end|>",
    "<|content_image|>",
    "<|content_audio_input|>",
    "<|content_text|>",
    "<|unused_200054|>",
]
SPECIAL += ["<|unused_200053|>", "<|message_system|>", "<|message_user|>", "<|message_model|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|message_' + ('model' if message['role'] == 'assistant' else message['role']) + '|>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|content_audio_input|><|unused_200053|>"
    "{% elif part['type'] == 'image' %}<|content_image|><|unused_200054|>"
    "{% elif part['type'] == 'text' %}<|content_text|>{{ part['text'] }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|message_model|><|content_text|>{% endif %}"
)
MELS, BINS = 20, 16


def available() -> bool:
    return has_model("inkling")


def make(directory: Path) -> Path:
    import torch
    from transformers import (
        InklingAudioConfig,
        InklingConfig,
        InklingForConditionalGeneration,
        InklingTextConfig,
        InklingVisionConfig,
    )

    tokenizer = _write_processor(directory)
    token = tokenizer.convert_tokens_to_ids
    config = InklingConfig(
        text_config=InklingTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            swa_num_attention_heads=4,
            swa_num_key_value_heads=2,
            swa_head_dim=16,
            sliding_window_size=64,
            local_layer_ids=[0, 2],
            mlp_layer_types=["dense", "sparse", "sparse"],
            d_rel=8,
            rel_extent=64,
            max_position_embeddings=4096,
            moe_intermediate_size=32,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_shared_experts=1,
            logits_mup_width_multiplier=1.0,
            pad_token_id=token("<|pad|>"),
            bos_token_id=None,
            eos_token_id=token("<|end|>"),
        ),
        audio_config=InklingAudioConfig(n_mel_bins=MELS, mel_vocab_size=BINS),
        vision_config=InklingVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
        image_token_id=token("<|unused_200054|>"),
        audio_token_id=token("<|unused_200053|>"),
        image_bos_token_id=token("<|content_image|>"),
        audio_bos_token_id=token("<|content_audio_input|>"),
    )
    torch.manual_seed(0)
    model = InklingForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Layers initialised at random hardly look beyond their own token.
            if "language_model.layers" in name and parameter.ndim > 1:
                parameter *= 5
    model.save_pretrained(directory)
    return directory


def _write_processor(directory: Path) -> Any:
    """The processor's files; its image part cannot be made without torchvision, so they are written by hand."""
    from transformers import InklingFeatureExtractor

    tokenizer = make_tokenizer(SPECIAL, eos="<|end|>", pad="<|pad|>", template=TEMPLATE)
    tokenizer.save_pretrained(directory)
    content = {
        "processor_class": "InklingProcessor",
        "num_dmel_bins": BINS,
        "feature_extractor": InklingFeatureExtractor(feature_size=MELS).to_dict(),
        "image_processor": {"image_processor_type": "InklingImageProcessor"},
    }
    (directory / "processor_config.json").write_text(json.dumps(content, default=lambda array: array.tolist()))
    return tokenizer


def reference(directory: Path, text: str, clip: Any | None) -> Any:
    """By the parts of the processor that need no torchvision, and what it does with their output."""
    import torch
    from transformers import AutoFeatureExtractor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    content = [] if clip is None else [{"type": "audio"}]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    prompt = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    features = {}
    if clip is not None:
        mels = AutoFeatureExtractor.from_pretrained(directory)(clip, return_tensors="pt")["input_features"].double()
        distances = (mels[..., None] - torch.linspace(-7, 2, BINS, dtype=torch.float64)).abs()
        features = {"audio_input_ids": distances.argmin(dim=-1)}
        prompt = prompt.replace("<|unused_200053|>", "<|unused_200053|>" * mels.shape[1])
    return {**tokenizer(prompt, return_tensors="pt"), **features}
