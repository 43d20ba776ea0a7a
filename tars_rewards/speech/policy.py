"""A freshly loaded speech model, made fit to be the policy of an RL framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tars_rewards.speech.encoder_cache import EncoderCache
from tars_rewards.speech.families import TrainableFamily

if TYPE_CHECKING:
    from torch import nn

NEVER = -1e4
"""Logit of a token that is never sampled: no probability, and still finite after a division by the temperature."""


def prepare_model(model: Any, family: TrainableFamily, *, never_sampled: Sequence[int], frozen: bool) -> None:
    """Make a freshly loaded model fit for training.

    Args:
        model: Hugging Face model of the family, before LoRA and sharding.
        family: The model's family.
        never_sampled: Ids of the tokens that the rollout engine never samples.
        frozen: Whether to freeze the encoders.
    """
    model._no_split_modules = list(family.layer_classes)
    if frozen:
        for tower in family.towers:
            model.get_submodule(tower).requires_grad_(False)
    EncoderCache(model.get_submodule(family.audio_tower), family, frozen=frozen).install()
    mask_logits(model.get_output_embeddings(), never_sampled)
    _tie_audio_into_every_backward(model, family)


def mask_logits(head: nn.Module, token_ids: Sequence[int]) -> None:
    """Let a language model's head give certain tokens no probability, as the rollout engine does.

    The engine samples from a distribution without them. Log-probabilities of the trained model are of the same
    distribution only if it leaves them out too.
    """
    if not token_ids:
        return

    def hook(_: nn.Module, __: Any, logits: Any) -> Any:
        import torch

        # In place: a copy of the logits is often the largest tensor of a step.
        return logits.index_fill_(-1, torch.tensor(token_ids, device=logits.device), NEVER)

    head.register_forward_hook(hook)


def _tie_audio_into_every_backward(model: Any, family: TrainableFamily) -> None:
    """Give the audio path's parameters a gradient, if only zero, in micro batches without audio too.

    Ranks reduce the gradients of a shard together. Where one rank's micro batch has audio and another's has none, the
    ranks would reduce different sets of parameters.
    """
    parts = [model.get_submodule(path) for path in family.audio_path]

    def hook(_: nn.Module, __: Any, embeddings: Any) -> Any:
        import torch

        if torch.is_grad_enabled() and _world_size() > 1:
            for parameter in (each for part in parts for each in part.parameters() if each.requires_grad):
                embeddings = embeddings + 0.0 * parameter.sum().to(embeddings.dtype)
        return embeddings

    model.get_input_embeddings().register_forward_hook(hook)


def _world_size() -> int:
    import torch.distributed

    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
