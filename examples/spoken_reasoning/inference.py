"""Prompts as embeddings and batched generation, with each clip encoded once.

The stock path (`processor(...)`, then `thinker.generate(**inputs)`) runs the frozen audio tower anew for every sample and
pass. Here a clip goes through the tower once; what is kept is the tower's output before its projector, because the
projector is trained. The result is the same as the stock path's (there is a test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from model import Thinker
from speech import SAMPLE_RATE
from tokenizer import TRANSCRIBE
from transformers import Qwen2_5OmniProcessor

if TYPE_CHECKING:
    from jaxtyping import Float

AUDIO = "<|AUDIO|>"


@dataclass(frozen=True)
class Generated:
    """Completions of a batch of prompts.

    Attributes:
        tokens: Generated ids of each prompt, with the end-of-turn token where there was one.
        text: The same, decoded without special tokens.
        truncated: Whether the completion ran into the limit.
        entropy: Entropy of the next-token distribution (nats) averaged over the tokens of each completion; empty where it was
            not wanted.
    """

    tokens: list[list[int]]
    text: list[str]
    truncated: list[bool]
    entropy: list[float]


def prompt_text(processor: Qwen2_5OmniProcessor, question: str | None, instruction: str = "") -> str:
    """Chat-formatted prompt; ``question=None`` puts audio in its place."""
    content = [{"type": "audio"} if question is None else {"type": "text", "text": question}]
    if instruction:
        content.append({"type": "text", "text": f"\n{instruction}"})
    prompt: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return prompt


def transcription_prompt(processor: Qwen2_5OmniProcessor) -> str:
    """The prompt that asks for the words of a clip instead of an answer."""
    return prompt_text(processor, None, TRANSCRIBE)


@torch.no_grad()
def hear(
    thinker: Thinker, processor: Qwen2_5OmniProcessor, clips: Sequence[npt.NDArray[np.float32]], *, batch_size: int = 8
) -> list[Float[torch.Tensor, "audio_tokens tower"]]:
    """Frozen part of the audio tower: everything before its projector.

    Args:
        thinker: The model.
        processor: Its processor.
        clips: Mono clips at 16 kHz.
        batch_size: Clips per pass.

    Returns:
        One float32 tensor per clip, 25 rows a second.
    """
    tower = thinker.audio_tower
    heard: list[torch.Tensor] = []
    encoded: list[torch.Tensor] = []
    hook = tower.proj.register_forward_pre_hook(lambda _module, inputs: encoded.append(inputs[0]))
    try:
        for start in range(0, len(clips), batch_size):
            batch = processor.feature_extractor(
                list(clips[start : start + batch_size]),
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
                padding="max_length",
                return_attention_mask=True,
            )
            frames = batch["attention_mask"].sum(-1)
            mel = batch["input_features"].permute(0, 2, 1)[batch["attention_mask"].bool()].T
            tower(mel, feature_lens=frames)
            _, tokens = tower._get_feat_extract_output_lengths(frames)
            heard.extend(encoded.pop().split(tokens.tolist()))
    finally:
        hook.remove()
    return heard


def embed(
    thinker: Thinker,
    processor: Qwen2_5OmniProcessor,
    text: str,
    audio: Float[torch.Tensor, "audio_tokens tower"] | None = None,
) -> Float[torch.Tensor, "tokens hidden"]:
    """Input embeddings of a text in which the audio placeholder, if any, stands for ``audio`` (from `hear`)."""
    table = thinker.get_input_embeddings()
    parts = [table(_ids(processor, piece)) for piece in text.split(AUDIO)]
    if len(parts) != 1 + (audio is not None):
        raise ValueError(f"expected one clip per audio placeholder, got {len(parts) - 1} placeholders in {text!r}")
    if audio is None:
        return parts[0]
    return torch.cat([parts[0], thinker.audio_tower.proj(audio.float()), parts[1]])


def left_pad(rows: Sequence[Float[torch.Tensor, "tokens hidden"]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as ``[batch, longest, hidden]``, and their mask ``[batch, longest]`` (int64)."""
    longest = max(map(len, rows))
    padded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.stack([(torch.arange(longest) >= longest - len(row)).long() for row in rows])
    return padded, mask


@torch.no_grad()
def generate(
    thinker: Thinker,
    processor: Qwen2_5OmniProcessor,
    prompts: Sequence[Float[torch.Tensor, "tokens hidden"]],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    seed: int = 0,
    with_entropy: bool = True,
) -> Generated:
    """Complete prompts, in batches of similar length.

    Args:
        thinker: The model.
        processor: Its processor.
        prompts: Prompt embeddings from `embed`.
        temperature: 0 takes the likeliest token, else samples.
        max_new_tokens: Limit of a completion.
        batch_size: Prompts per batch.
        seed: Seed of the sampling.
        with_entropy: Whether the entropies are wanted, which take the logits of every step.

    Returns:
        Completions in the order of the prompts.
    """
    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    tokens: list[list[int]] = [[] for _ in prompts]
    entropy = [0.0] * len(prompts) if with_entropy else []
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    for start in range(0, len(prompts), batch_size):
        rows = by_length[start : start + batch_size]
        embeddings, mask = left_pad([prompts[i] for i in rows])
        thinker.rope_deltas = None
        output = thinker.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            output_logits=with_entropy,
            return_dict_in_generate=True,
            **sampling,
        )
        for i, ids in zip(rows, output.sequences.tolist(), strict=True):
            tokens[i] = ids[: ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids
        if with_entropy:
            log_probs = torch.stack(output.logits, dim=1).log_softmax(-1)
            for i, nats in zip(rows, -(log_probs.exp() * log_probs).sum(-1), strict=True):
                entropy[i] = float(nats[: len(tokens[i])].mean())
    return Generated(
        tokens=tokens,
        text=tokenizer.batch_decode(tokens, skip_special_tokens=True),
        truncated=[tokenizer.eos_token_id not in ids for ids in tokens],
        entropy=entropy,
    )


def _ids(processor: Qwen2_5OmniProcessor, text: str) -> torch.Tensor:
    return torch.tensor(processor.tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)
