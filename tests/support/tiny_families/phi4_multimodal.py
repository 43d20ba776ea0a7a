"""Phi-4-multimodal: a conformer inside a Phi-4 model, with LoRA adapters for speech and for images beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_parts import SIZES, has_model, make_tokenizer

NAME = "phi4_multimodal"
MODEL_TYPE = "phi4_multimodal"
SPECIAL = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|image|>", "<|audio|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio|>{% elif part['type'] == 'image' %}<|image|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MELS, AUDIO_WIDTH, VISION_WIDTH = 80, 32, 32


def available() -> bool:
    return has_model("phi4_multimodal")


def make(directory: Path) -> Path:
    import torch
    from transformers import (
        Phi4MultimodalAudioConfig,
        Phi4MultimodalConfig,
        Phi4MultimodalForCausalLM,
        Phi4MultimodalVisionConfig,
    )

    tokenizer = _write_processor(directory)
    token = tokenizer.convert_tokens_to_ids
    config = Phi4MultimodalConfig(
        **SIZES,
        vocab_size=len(tokenizer),
        max_position_embeddings=16384,
        original_max_position_embeddings=4096,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 6,
            "long_factor": [1.0 + index for index in range(6)],
            "original_max_position_embeddings": 4096,
        },
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=[token("<|endoftext|>"), token("<|end|>")],
        pad_token_id=token("<|endoftext|>"),
        audio_config=Phi4MultimodalAudioConfig(
            hidden_size=AUDIO_WIDTH,
            intermediate_size=48,
            num_blocks=2,
            num_attention_heads=2,
            ext_pw_out_channel=AUDIO_WIDTH,
            depthwise_separable_out_channel=AUDIO_WIDTH,
            nemo_conv_channels=16,
            input_size=MELS,
            audio_token_id=token("<|audio|>"),
        ),
        vision_config=Phi4MultimodalVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_token_id=token("<|image|>"),
        ),
    )
    torch.manual_seed(0)
    model = Phi4MultimodalForCausalLM(config)
    with torch.no_grad():
        audio = model.model.embed_tokens_extend.audio_embed
        audio.encoder.embed.out.weight *= 10
        audio.up_proj_for_speech.weight *= 10
        audio.down_proj_for_speech.weight *= 10
    model.save_pretrained(directory)
    for seed, name in enumerate(("speech", "vision")):
        _write_adapter(model, directory / f"{name}-lora", seed)
    return directory


def _write_processor(directory: Path) -> Any:
    """The processor's files; its image part cannot be made without torchvision, so they are written by hand."""
    tokenizer = make_tokenizer(
        SPECIAL,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        template=TEMPLATE,
        named={"image_token": "<|image|>", "audio_token": "<|audio|>"},
    )
    tokenizer.save_pretrained(directory)
    content = {
        "processor_class": "Phi4MultimodalProcessor",
        "image_processor_type": "Phi4MultimodalImageProcessor",
        "dynamic_hd": 36,
        "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
        "feature_size": MELS,
        "sampling_rate": 16000,
        "audio_compression_rate": 8,
        "audio_downsample_rate": 1,
        "audio_feat_stride": 1,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(content))
    return tokenizer


def _write_adapter(model: Any, directory: Path, seed: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Phi4MultimodalForCausalLM

    base = Phi4MultimodalForCausalLM(model.config)
    targets = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(directory)


def reference(directory: Path, text: str, clip: Any | None) -> Any:
    """By the parts of the processor that need no torchvision, and what it does with their output."""
    from transformers import AutoFeatureExtractor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    content = [] if clip is None else [{"type": "audio"}]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    prompt = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    if clip is None:
        return tokenizer(prompt, return_tensors="pt")
    extractor = AutoFeatureExtractor.from_pretrained(directory)
    features = extractor(clip, sampling_rate=16000, return_tensors="pt")
    prompt = prompt.replace("<|audio|>", "<|audio|>" * int(features["audio_embed_sizes"]))
    return {**tokenizer(prompt, return_tensors="pt"), **features}


def prepare(model: Any, directory: Path, heard: bool) -> None:
    """The adapter is for listening only. (It must not be named "speech": see ``tars_rewards.speech.adapters``.)"""
    if not model._hf_peft_config_loaded:
        model.load_adapter(str(directory / "speech-lora"), adapter_name="lora_to_listen")
    model.enable_adapters() if heard else model.disable_adapters()
