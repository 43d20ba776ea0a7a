"""Qwen3-Omni as it is published, without talker and vocoder; its Thinker, a mixture of experts, is what is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_models import AUDIO, AUDIO_WIDTH, HIDDEN, MELS, VISION, decoder_sizes, make_tokenizer

NAME = "qwen3_omni_moe"
MODEL_TYPE = "qwen3_omni_moe"


def available() -> bool:
    return True


def processor(directory: Path):
    """The stock one asks for torchvision before it looks at its arguments."""
    from tars_rewards.speech.omni_processors import Qwen3OmniProcessorWithoutVideo

    return Qwen3OmniProcessorWithoutVideo.from_pretrained(directory)


def make(directory: Path) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import (
        Qwen3OmniMoeConfig,
        Qwen3OmniMoeThinkerConfig,
        Qwen3OmniMoeThinkerForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    tokenizer = make_tokenizer({**AUDIO, **VISION})
    token = tokenizer.convert_tokens_to_ids
    thinker = Qwen3OmniMoeThinkerConfig(
        audio_config={
            "num_mel_bins": MELS,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "d_model": AUDIO_WIDTH,
            "output_dim": HIDDEN,
            "downsample_hidden_size": 8,
            # As published: windows of one second, attention over eight of them.
            "n_window": 50,
            "n_window_infer": 800,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        text_config=decoder_sizes(
            tokenizer,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
                "mrope_interleaved": True,
            },
        ),
        audio_token_id=token(AUDIO["audio_token"]),
        image_token_id=token(VISION["image_token"]),
        video_token_id=token(VISION["video_token"]),
        vision_start_token_id=token(VISION["vision_bos_token"]),
        vision_end_token_id=token(VISION["vision_eos_token"]),
        audio_start_token_id=token(AUDIO["audio_bos_token"]),
        user_token_id=tokenizer("user").input_ids[0],
    )
    torch.manual_seed(0)
    model = Qwen3OmniMoeThinkerForConditionalGeneration(thinker)
    # An encoder initialised at random gives every clip nearly the same faint features.
    with torch.no_grad():
        for name in ("conv2d1", "conv2d2", "conv2d3", "proj2"):
            model.audio_tower.get_submodule(name).weight *= 10
    directory.mkdir(parents=True, exist_ok=True)
    weights = {f"thinker.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = Qwen3OmniMoeConfig(thinker_config=thinker.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen3OmniMoeForConditionalGeneration"]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    # The published checkpoint keeps all processors in one file.
    preprocessor = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16000, chunk_length=30).to_dict()
    preprocessor |= {
        "processor_class": "Qwen3OmniMoeProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return directory
