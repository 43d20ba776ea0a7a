"""Tiny random models in the shape of real checkpoints, clips, and a paired dataset: everything from one seed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

# In a real checkpoint's names. The first is the padding token, the third ends a turn.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
AUDIO = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
VISION = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, LAYERS, HEADS, KV_HEADS = 128, 3, 4, 2  # head_dim 32: the smallest that vLLM's CPU attention takes
MELS, AUDIO_WIDTH = 32, 32


def make_tokenizer(named: dict[str, str]):
    """Byte-level BPE of about 400 tokens with the special tokens of the Qwen family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    corpus = [
        f"What is {a} plus {b}? <think>{a}+{b}</think><answer>The answer is {a + b}.</answer>"
        for a in range(30)
        for b in range(30)
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL + list(named.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*corpus, "system user assistant You are a helpful assistant."], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        extra_special_tokens=named,
        additional_special_tokens=None if named else SPECIAL[1:],
        chat_template=TEMPLATE,
    )


def decoder_sizes(tokenizer, **more):
    """What every text decoder's config is made of."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def make_text_model(directory: Path) -> Path:
    """A Qwen2 language model without audio."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer({})
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**decoder_sizes(tokenizer))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_qwen2_audio(directory: Path) -> Path:
    """Qwen2-Audio; its encoder takes windows of exactly 30 s, as vLLM insists."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2Config,
        WhisperFeatureExtractor,
    )

    tokenizer = make_tokenizer(AUDIO)
    Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16000, chunk_length=30),
        tokenizer,
        chat_template=TEMPLATE,
    ).save_pretrained(directory)
    encoder = Qwen2AudioEncoderConfig(
        num_mel_bins=MELS,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        d_model=AUDIO_WIDTH,
        max_source_positions=1500,
    )
    config = Qwen2AudioConfig(
        audio_config=encoder,
        text_config=Qwen2Config(**decoder_sizes(tokenizer)),
        audio_token_index=tokenizer.convert_tokens_to_ids(AUDIO["audio_token"]),
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        model.model.audio_tower.conv1.weight *= 10
        model.model.multi_modal_projector.linear.weight *= 10
    model.save_pretrained(directory)
    return directory


def make_qwen2_5_omni(directory: Path) -> Path:
    """Qwen2.5-Omni as it is published: the Omni config, weights below ``thinker.``; talker and vocoder left out."""
    from safetensors.torch import save_file
    from transformers import (
        Qwen2_5OmniConfig,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        WhisperFeatureExtractor,
    )
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
        Qwen2_5OmniAudioEncoderConfig,
        Qwen2_5OmniTextConfig,
        Qwen2_5OmniVisionEncoderConfig,
    )

    tokenizer = make_tokenizer({**AUDIO, **VISION})
    token = tokenizer.convert_tokens_to_ids
    thinker = Qwen2_5OmniThinkerConfig(
        audio_config=Qwen2_5OmniAudioEncoderConfig(
            num_mel_bins=MELS,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=64,
            d_model=AUDIO_WIDTH,
            output_dim=HIDDEN,
        ),
        vision_config=Qwen2_5OmniVisionEncoderConfig(
            depth=1,
            hidden_size=64,
            intermediate_size=64,
            num_heads=2,
            out_hidden_size=HIDDEN,
            fullatt_block_indexes=[0],
        ),
        text_config=Qwen2_5OmniTextConfig(
            **decoder_sizes(
                tokenizer,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            )
        ),
        audio_token_index=token(AUDIO["audio_token"]),
        image_token_index=token(VISION["image_token"]),
        video_token_index=token(VISION["video_token"]),
        vision_start_token_id=token(VISION["vision_bos_token"]),
        vision_end_token_id=token(VISION["vision_eos_token"]),
        audio_start_token_id=token(AUDIO["audio_bos_token"]),
        audio_end_token_id=token(AUDIO["audio_eos_token"]),
        user_token_id=tokenizer("user").input_ids[0],
    )
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration(thinker)
    # An encoder initialised at random gives every clip nearly the same faint features.
    with torch.no_grad():
        model.audio_tower.proj.weight *= 30
        model.audio_tower.conv1.weight *= 10
    directory.mkdir(parents=True, exist_ok=True)
    weights = {f"thinker.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = Qwen2_5OmniConfig(thinker_config=thinker.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen2_5OmniModel"]
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    # The published checkpoint keeps all processors in one file.
    preprocessor = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16000, chunk_length=30).to_dict()
    preprocessor |= {
        "processor_class": "Qwen2_5OmniProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return directory


def make_clips(directory: Path, count: int = 8) -> list[Path]:
    """Tones of different pitch with noise, half a second each, as wav files of 16 kHz (odd ones: 22.05 kHz)."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        rate = 22050 if index % 2 else 16000
        time = np.arange(rate // 2) / rate
        tone = 0.3 * np.sin(2 * np.pi * (120 + 90 * index) * time) + generator.normal(0, 0.05, time.size)
        paths.append(directory / f"{index}.wav")
        soundfile.write(paths[-1], tone.astype(np.float32), rate)
    return paths


def make_pairs(path: Path, clips: list[Path] | None) -> Path:
    """Questions as pairs of rows in the columns verl reads; spoken ones have a clip, or a word if ``clips`` is None."""
    generator = random.Random(0)
    rows = []
    for index in range(8):
        a, b = generator.randint(0, 9), generator.randint(0, 9)
        for modality in ("speech", "text"):
            question = f"What is {a} plus {b}?"
            if modality == "speech":
                question = "<audio>" if clips else f"(spoken) {question}"
            row = {
                "data_source": "tiny",
                "prompt": [{"role": "user", "content": question}],
                "reward_model": {"style": "rule", "ground_truth": str(a + b)},
                "extra_info": {"index": index},
                "pair_id": f"q{index}",
                "modality": modality,
            }
            if clips:
                row["audios"] = [str(clips[index])] if modality == "speech" else []
            rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)
    return path


def make_everything(directory: Path) -> None:
    """All models, clips and datasets below ``directory``."""
    make_text_model(directory / "text")
    make_qwen2_audio(directory / "qwen2_audio")
    make_qwen2_5_omni(directory / "qwen2_5_omni")
    make_pairs(directory / "text.parquet", None)
    make_pairs(directory / "audio.parquet", make_clips(directory / "clips"))


if __name__ == "__main__":
    import sys

    make_everything(Path(sys.argv[1]))
