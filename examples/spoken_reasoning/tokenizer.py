"""The base model's own tokenizer and processor: byte-level BPE of 640 tokens, with Qwen2.5-Omni's special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from questions import LETTERS, generate
from speech import MAX_SECONDS, SAMPLE_RATE
from tokenizers import AddedToken, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast, WhisperFeatureExtractor
from whisper_encoder import MELS

from tars_rewards.speech.processors import Qwen2_5OmniProcessor

VOCAB_SIZE = 640
PAD, EOS = "<|endoftext|>", "<|im_end|>"
# Attributes by which Qwen2_5OmniProcessor finds them in the tokenizer.
MULTIMODAL_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
SPECIAL_TOKENS = [PAD, "<|im_start|>", EOS, *MULTIMODAL_TOKENS.values()]
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TRANSCRIBE = "Write down the words."  # the instruction of the transcription prompt

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' or 'audio' in part %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str]) -> Qwen2TokenizerFast:
    """Byte-level BPE over the texts.

    ``<think>`` and the other three tags are single tokens, but not special ones (as in Qwen3): decoders drop special
    tokens, and with them the format reward would be lost.

    Args:
        texts: Training texts.

    Returns:
        A fast tokenizer with padding on the left and the chat template set.
    """
    bpe = Qwen2TokenizerFast().backend_tokenizer  # for its normaliser and its splitting into words
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=[*SPECIAL_TOKENS, *TAGS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2TokenizerFast(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        eos_token=EOS,
        pad_token=PAD,
        unk_token=PAD,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        extra_special_tokens={"im_start_token": "<|im_start|>", **MULTIMODAL_TOKENS},
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def training_texts() -> list[str]:
    """What the tokenizer is trained on: questions and completions of the training split, and the fixed phrases."""
    questions = generate("train", 4000, seed=0)
    fixed = ["user\nassistant\n", TRANSCRIBE, *(f"The answer is {letter}." for letter in LETTERS)]
    return [text for q in questions for text in (q.text, q.reasoning)] + fixed * 200


def save_processor(tokenizer: Qwen2TokenizerFast, directory: Path) -> None:
    """Write the files of a Qwen2.5-Omni processor around the tokenizer.

    The feature extractor's window is the example's `MAX_SECONDS`, so nothing is padded to Whisper's 30 s. The image and
    video settings are there because the class wants them; they are never used.

    Args:
        tokenizer: From `train_tokenizer`.
        directory: Existing directory.
    """
    tokenizer.save_pretrained(directory)
    extractor = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=SAMPLE_RATE, chunk_length=int(MAX_SECONDS))
    pixels = {"size": {"shortest_edge": 3136, "longest_edge": 50176}, "patch_size": 14, "merge_size": 2}
    settings = {
        "processor_class": "Qwen2_5OmniProcessor",
        "feature_extractor": extractor.to_dict(),
        "image_processor": {"image_processor_type": "Qwen2VLImageProcessor", "temporal_patch_size": 2, **pixels},
        "video_processor": {"temporal_patch_size": 2, **pixels},
    }
    (directory / "processor_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def load_processor(directory: Path) -> Qwen2_5OmniProcessor:
    """Load the processor of a model directory, also where torchvision is missing."""
    processor: Qwen2_5OmniProcessor = Qwen2_5OmniProcessor.from_pretrained(directory)
    return processor
