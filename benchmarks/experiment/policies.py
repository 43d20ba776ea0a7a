"""A checkpoint as the policy that verl trains: the same trained parameters, the same distribution of tokens.

With ``freeze_vision_tower`` verl's adapter freezes the audio tower *with its projector*, and the vision tower; everything
else, which is the text decoder with its embeddings and its head, is trained. Tokens that mean something in a prompt only
have no probability, in the rollout engine and in the trained model alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import paths  # noqa: F401  (lets the demo's modules be found)
import torch
from model import COMMITTED, Thinker, load
from transformers import Qwen2_5OmniProcessor

from tars_rewards.speech.families import trainable_of
from tars_rewards.speech.policy import mask_logits

MAX_NEW_TOKENS = 64  # verl.yaml: data.max_response_length


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in one thread: a run has one core, and results are the same on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_policy(directory: Path) -> tuple[Thinker, Qwen2_5OmniProcessor]:
    """Model (float32) and processor, with what verl freezes frozen and what is never sampled masked."""
    thinker, processor = load(directory, COMMITTED)
    family = trainable_of(thinker.config.model_type)
    for tower in family.towers:
        thinker.get_submodule(tower).requires_grad_(False)
    mask_logits(thinker.get_output_embeddings(), family.never_sampled(processor))
    return thinker, processor


def trained_parameters(thinker: Thinker) -> dict[str, torch.nn.Parameter]:
    """What of a policy is trained."""
    return {name: parameter for name, parameter in thinker.named_parameters() if parameter.requires_grad}


def completion_logits(
    thinker: Thinker, prompts: Sequence[torch.Tensor], completions: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Logits ``[tokens, vocabulary]`` of all tokens of some completions, one completion behind the other.

    Rows are padded on the right: with a causal decoder nothing before the padding can see it.

    Args:
        thinker: The policy.
        prompts: Embeddings ``[tokens, hidden]`` of each prompt.
        completions: Token ids of each completion.
    """
    table = thinker.get_input_embeddings()
    rows = [
        torch.cat([prompt, table(torch.tensor(tokens))]) for prompt, tokens in zip(prompts, completions, strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    states = thinker.model(inputs_embeds=padded, use_cache=False).last_hidden_state
    before = [len(prompt) - 1 for prompt in prompts]
    predicting = [
        states[row, start : start + len(tokens)]
        for row, (start, tokens) in enumerate(zip(before, completions, strict=True))
    ]
    logits: torch.Tensor = thinker.lm_head(torch.cat(predicting))
    return logits
