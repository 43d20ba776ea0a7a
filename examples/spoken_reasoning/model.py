"""The tiny Speech LLM: Qwen2.5-Omni's Thinker with Whisper tiny.en as its audio tower and a text decoder of 4 layers.

A model directory made here reads like a real Qwen2.5-Omni checkpoint (without the talker), for transformers and vLLM
alike. Its weights have three sources:

===================  ==========  ============================================================
part                 parameters  from
===================  ==========  ============================================================
audio tower          7.6 M       Whisper tiny.en (`whisper_encoder`), frozen
decoder, projector   1.2 M       trained by `train_base_model.py`, committed as ``trained.safetensors``
vision tower         < 0.1 M     random from a seed: the class demands one, nothing uses it
===================  ==========  ============================================================
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from speech import MAX_SECONDS
from tokenizer import EOS, MULTIMODAL_TOKENS, PAD, load_processor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2TokenizerFast,
)
from whisper_encoder import FFN, HEADS, LAYERS, MELS, WIDTH, tower_state_dict

COMMITTED = Path(__file__).parent / "base_model"  # tokenizer and processor files, and trained.safetensors
TRAINED_FILE = "trained.safetensors"
MEL_FRAMES_PER_SECOND = 100
AUDIO_TOKENS_PER_SECOND = 25  # two mel frames to a position (convolution), two positions to a token (pooling)

Thinker = Qwen2_5OmniThinkerForConditionalGeneration


def thinker_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5OmniThinkerConfig:
    """Configuration of the tiny Thinker.

    The audio tower attends within windows of ``2 * n_window`` mel frames. One window spans the longest clip, so that a
    clip is attended to as a whole, as Whisper was trained.
    """
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MULTIMODAL_TOKENS.items()}
    hidden, heads = 128, 4  # vLLM on CPUs needs heads at least 32 wide
    return Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": MELS,
            "encoder_layers": LAYERS,
            "encoder_attention_heads": HEADS,
            "encoder_ffn_dim": FFN,
            "d_model": WIDTH,
            "n_window": int(MAX_SECONDS * MEL_FRAMES_PER_SECOND) // 2,
            "output_dim": hidden,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 1,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [0],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 1024,
            # Audio and text positions are equal in all three sections, so the split is immaterial; it must sum to 16.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5]},
            "tie_word_embeddings": False,
            "eos_token_id": tokenizer.convert_tokens_to_ids(EOS),
            "pad_token_id": tokenizer.convert_tokens_to_ids(PAD),
        },
        audio_token_index=ids["audio_token"],
        image_token_index=ids["image_token"],
        video_token_index=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        user_token_id=tokenizer.convert_tokens_to_ids("us"),
        tie_word_embeddings=False,
    )


def new_thinker(tokenizer: PreTrainedTokenizerBase, *, seed: int = 0) -> Thinker:
    """Thinker with Whisper's encoder in place, the rest random from the seed; float32."""
    torch.manual_seed(seed)
    thinker = Thinker(thinker_config(tokenizer)).float()
    _initialise_decoder(thinker)
    missing, unexpected = thinker.audio_tower.load_state_dict(tower_state_dict(), strict=False)
    ours = {"proj.weight", "proj.bias", "audio_bos_eos_token.weight"}
    if set(missing) != ours or unexpected:
        raise ValueError(
            f"expected Whisper to lack only {sorted(ours)}, got missing {sorted(missing)}, unexpected {unexpected}: "
            "this version of transformers names the audio tower's parameters otherwise"
        )
    return thinker


@torch.no_grad()
def _initialise_decoder(thinker: Thinker) -> None:
    """Random weights with which the decoder learns to look words up.

    Reasoning over a question is mostly finding a word again and copying it. From the usual weights a decoder of this size
    does not come to it within the recipe's steps: its letters stay at chance. Hence the mimetic initialisation of Trockman
    and Kolter (arXiv 2305.09828), queries near keys and outputs near transposed values, so that attention looks for like
    words and copies them from the start, and an output head that equals the embedding.
    """
    spread, sharpness, copying = 0.04, 0.5, 0.4
    for parameter in (*thinker.model.parameters(), *thinker.lm_head.parameters()):
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=spread)
    torch.nn.init.normal_(thinker.model.embed_tokens.weight, std=2 * spread)
    thinker.lm_head.weight.copy_(thinker.model.embed_tokens.weight)
    for layer in thinker.model.layers:
        attention = layer.self_attn
        match, copy = (torch.nn.init.orthogonal_(torch.empty_like(attention.q_proj.weight)) for _ in range(2))
        attention.q_proj.weight.add_(match, alpha=sharpness)
        attention.k_proj.weight.add_(match, alpha=sharpness)
        attention.v_proj.weight.add_(copy, alpha=copying)
        attention.o_proj.weight.add_(copy.T, alpha=copying)


def trained_parameters(thinker: Thinker) -> dict[str, torch.nn.Parameter]:
    """The parameters that this example trains: text decoder, output head, projector and audio marks."""
    frozen = ("visual.", "audio_tower.")
    ours = ("audio_tower.proj.", "audio_tower.audio_bos_eos_token.")
    return {
        name: parameter
        for name, parameter in thinker.named_parameters()
        if name.startswith(ours) or not name.startswith(frozen)
    }


def save_trained(thinker: Thinker, path: Path) -> None:
    """Write the trained parameters as float16 safetensors."""
    save_file({name: p.detach().half().contiguous() for name, p in trained_parameters(thinker).items()}, path)


def load_trained(thinker: Thinker, path: Path) -> None:
    """Read what `save_trained` wrote into a thinker.

    Raises:
        ValueError: The file does not hold exactly the trained parameters.
    """
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    expected = trained_parameters(thinker).keys()
    if state.keys() != expected:
        raise ValueError(
            f"expected the trained parameters of this model in {path}, got {sorted(state.keys() ^ expected)} too few "
            "or too many: rebuild it with `make base-model`"
        )
    thinker.load_state_dict(state, strict=False)


def assemble(directory: Path, trained: Path = COMMITTED / TRAINED_FILE) -> None:
    """Write the base model: committed trained part, packaged encoder, configuration and processor files.

    Args:
        directory: Where to; created if missing.
        trained: The trained part, as `save_trained` writes it; by default the demo's.
    """
    thinker = new_thinker(Qwen2TokenizerFast.from_pretrained(COMMITTED))
    load_trained(thinker, trained)
    save_checkpoint(thinker, directory)


def save_checkpoint(thinker: Thinker, directory: Path, *, files: Path = COMMITTED) -> None:
    """Write a thinker as a Qwen2.5-Omni checkpoint without talker.

    Args:
        thinker: The model.
        directory: Where to; created if missing.
        files: Directory of its tokenizer and processor files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for file in files.iterdir():
        if file.suffix in {".json", ".jinja"}:
            shutil.copy(file, directory)
    weights = {f"thinker.{name}": tensor.contiguous() for name, tensor in thinker.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    text = thinker.config.text_config
    # The talker's defaults name token ids beyond its vocabulary; it is never built (enable_audio_output).
    talker = {"vocab_size": 152_064, "num_hidden_layers": 1}
    config = Qwen2_5OmniConfig(
        thinker_config=thinker.config.to_dict(), talker_config=talker, enable_audio_output=False, dtype="float32"
    )
    config.architectures = ["Qwen2_5OmniModel"]
    config.tie_word_embeddings = False
    config.save_pretrained(directory)
    GenerationConfig(eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id).save_pretrained(directory)


def load(directory: Path, processor_files: Path | None = None) -> tuple[Thinker, Qwen2_5OmniProcessor]:
    """Thinker (float32, for inference) and processor of a model directory, the latter from elsewhere if given."""
    # Named, since a checkpoint may name the attention that it was trained with.
    thinker = Thinker.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa").eval()
    return thinker, load_processor(processor_files or directory)
