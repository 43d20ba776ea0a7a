"""The trained speech model in verl's FSDP engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tars_rewards.speech_models import SpeechModelFamily, find_family
from tars_rewards_verl.patching import after_import, check_signature, require_attribute

if TYPE_CHECKING:
    from torch import nn

FROZEN = "freeze_towers"
"""Key of ``actor_rollout_ref.model.override_config``: whether the encoders of other modalities stay as they are."""
NEVER = -1e4
"""Logit of a token that is never sampled: no probability, and still finite after a division by the temperature."""


def install() -> None:
    """Arrange for the engine and its sharding to be patched."""
    after_import("verl.workers.engine.fsdp.transformer_impl", _prepare_models)
    after_import("verl.utils.fsdp_utils", _spare_the_tower)


def prepare_model(model: Any, family: SpeechModelFamily, *, never_sampled: Sequence[int], frozen: bool) -> None:
    """Make a freshly loaded model fit for verl's engine.

    Args:
        model: Hugging Face model of the family, before LoRA and FSDP.
        family: The model's family.
        never_sampled: Ids of the tokens that the rollout engine never samples.
        frozen: Whether to freeze the encoders.
    """
    from tars_rewards_verl.audio.encoder_cache import EncoderCache

    model._no_split_modules = list(family.layer_classes)
    if frozen:
        for tower in family.towers:
            model.get_submodule(tower).requires_grad_(False)
    EncoderCache(model.get_submodule(family.audio_tower), family).install()
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


def _tie_audio_into_every_backward(model: Any, family: SpeechModelFamily) -> None:
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


def _prepare_models(module: ModuleType) -> None:
    engine = require_attribute(module, "FSDPEngine", module.__name__)
    stock = require_attribute(engine, "_build_module", "verl FSDPEngine")
    check_signature(stock, ["self"], "verl FSDPEngine._build_module")

    @functools.wraps(stock)
    def build_module(self: Any) -> Any:
        model = stock(self)
        config = self.model_config
        family = find_family(getattr(config.hf_config, "model_type", None))
        if family is not None and config.model_type == "language_model":
            prepare_model(
                model,
                family,
                never_sampled=config.processor.never_sampled() if config.processor is not None else [],
                frozen=bool((config.override_config or {}).get(FROZEN, False)),
            )
        return model

    engine._build_module = build_module


def _spare_the_tower(module: ModuleType) -> None:
    """FSDP2 shards every embedding by itself; Whisper's encoder reads the weight of one without calling it."""
    stock = require_attribute(module, "_select_fsdp2_wrap_targets", module.__name__)
    check_signature(
        stock, ["model", "fsdp_transformer_layer_cls_to_wrap"], f"{module.__name__}._select_fsdp2_wrap_targets"
    )

    @functools.wraps(stock)
    def select_fsdp2_wrap_targets(model: Any, fsdp_transformer_layer_cls_to_wrap: Iterable[str]) -> list[Any]:
        targets: list[Any] = stock(model, fsdp_transformer_layer_cls_to_wrap)
        family = find_family(getattr(model.config, "model_type", None))
        if family is None:
            return targets
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        inside = set(base.get_submodule(family.audio_tower).modules())
        return [target for target in targets if target not in inside]

    module._select_fsdp2_wrap_targets = select_fsdp2_wrap_targets  # type: ignore[attr-defined]
