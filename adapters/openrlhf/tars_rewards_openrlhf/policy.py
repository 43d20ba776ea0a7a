"""Policy and reference actors: pooled states from the log-prob forward that runs anyway, and speech models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import openrlhf.models.actor as stock_models
import openrlhf.trainer.ray.launcher as stock_launcher
import openrlhf.trainer.ray.ppo_actor as stock_policy
import openrlhf.utils.vlm_utils as stock_vlm_utils
import torch
from openrlhf.models import Actor

from tars_rewards.capture import capture_hidden_states
from tars_rewards.decoder_layers import decoder_layers
from tars_rewards.integration.patching import replace
from tars_rewards.speech.checkpoint import checkpoint_family, publish
from tars_rewards.speech.families import TrainableFamily
from tars_rewards.transport import PackedStates, pack_states
from tars_rewards_openrlhf.flags import read_flags
from tars_rewards_openrlhf.lora import is_lora, push_merged, save_merged
from tars_rewards_openrlhf.stock import plain_class
from tars_rewards_openrlhf.zero3 import restore_rotary

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

    class _PolicyBase:
        """``PolicyModelActor``, which is not typed."""

        actor: Any
        strategy: Any
        tokenizer: Any
        trainer: Any

        def init_model_from_pretrained(self, strategy: Any, pretrain: str, *args: Any, **kwargs: Any) -> None: ...

        def forward(self, *args: Any, **kwargs: Any) -> Any: ...

        def broadcast_to_vllm(self) -> None: ...

        def save_model(self) -> None: ...

        def save_checkpoint(self, tag: str, *args: Any, **kwargs: Any) -> None: ...

    class _ReferenceBase:
        """``ReferenceModelActor``, which is not typed."""

        model: Any

        def init_model_from_pretrained(self, strategy: Any, pretrain: str) -> None: ...
else:
    _PolicyBase = plain_class(stock_policy, "PolicyModelActor")
    _ReferenceBase = plain_class(stock_launcher, "ReferenceModelActor")


class PolicyActor(_PolicyBase):
    """``PolicyModelActor`` that keeps the pooled states of its log-prob forwards until they are fetched."""

    def init_model_from_pretrained(self, strategy: Any, pretrain: str, *args: Any, **kwargs: Any) -> None:
        """Stock, with a speech model's own class and processor."""
        self._tars_pooled: list[PackedStates] = []
        self._tars_capture = bool(read_flags(vars(strategy.args.tars))[0].alpha)
        self._tars_source, self._tars_family = pretrain, checkpoint_family(pretrain)
        if self._tars_family is not None:
            replace(stock_policy, "Actor", SpeechActor)
            replace(stock_policy, "merge_mm_train_inputs", merge_features, "mm_train_inputs_list device")
        super().init_model_from_pretrained(strategy, pretrain, *args, **kwargs)
        restore_rotary(plain_model(self.actor))
        if self._tars_capture:
            decoder_layers(self.actor.model)  # raises for a model without a known text decoder, before any rollout
        if self._tars_family is not None:
            from tars_rewards.speech.processors import load_processor

            self.tokenizer = load_processor(pretrain, self._tars_family)  # saved beside the model

    def forward(
        self,
        sequences: Int[Tensor, "batch tokens"],
        action_mask: Int[Tensor, "batch actions"],
        attention_mask: Int[Tensor, "batch tokens"],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Stock forward of a micro-batch, with hooks on the text decoder's layers."""
        if not self._tars_capture:
            return super().forward(sequences, action_mask, attention_mask, *args, **kwargs)
        mask, offsets = completion_mask(action_mask, attention_mask, packed=self.actor.packing_samples)
        device = torch.cuda.current_device()
        with capture_hidden_states(self.actor.model, mask.to(device), cu_seqlens=offsets) as captured:
            log_probs = super().forward(sequences, action_mask, attention_mask, *args, **kwargs)
        self._tars_pooled.append(pack_states(captured.pooled).cpu())
        return log_probs

    def pop_pooled(self) -> list[PackedStates]:
        """States of the micro-batches since the last call, in their order; zero for a row without a completion token."""
        pooled, self._tars_pooled = self._tars_pooled, []
        return pooled

    def broadcast_to_vllm(self) -> None:
        """Stock; a LoRA policy's adapters merged into the weights that vLLM knows."""
        if is_lora(self.actor.model.module):
            push_merged(self.trainer)
        else:
            super().broadcast_to_vllm()

    def save_model(self) -> None:
        """Stock, under the names of a published checkpoint."""
        super().save_model()
        self._tars_publish(self.strategy.args.ckpt.output_dir)

    def save_checkpoint(self, tag: str, *args: Any, **kwargs: Any) -> None:
        """Stock, under the names of a published checkpoint."""
        super().save_checkpoint(tag, *args, **kwargs)
        if self.strategy.args.ckpt.save_hf:
            self._tars_publish(os.path.join(self.strategy.args.ckpt.path, f"{tag}_hf"))

    def _tars_publish(self, directory: str) -> None:
        if is_lora(self.actor.model.module):
            save_merged(self.actor.model.module, directory, write=self.strategy.is_rank_0())
        if self._tars_family is not None and self.strategy.is_rank_0():
            publish(directory, self._tars_source, self._tars_family)


def plain_model(actor: Any) -> Any:
    """The Hugging Face model in an actor, without DeepSpeed's engine and PEFT's wrapper."""
    model = actor.model.module
    return model.get_base_model() if is_lora(model) else model


class ReferenceActor(_ReferenceBase):
    """``ReferenceModelActor`` of a speech model."""

    def init_model_from_pretrained(self, strategy: Any, pretrain: str) -> None:
        """Stock, with a speech model's own class."""
        if checkpoint_family(pretrain) is not None:
            replace(stock_launcher, "Actor", FrozenSpeechActor)
            replace(stock_vlm_utils, "merge_mm_train_inputs", merge_features, "mm_train_inputs_list device")
        super().init_model_from_pretrained(strategy, pretrain)
        restore_rotary(plain_model(self.model))


def completion_mask(
    action_mask: Int[Tensor, "batch actions"], attention_mask: Int[Tensor, "batch tokens"], *, packed: bool
) -> tuple[Bool[Tensor, "batch tokens"] | Bool[Tensor, " total"], Int[Tensor, " batch+1"] | None]:
    """Which tokens of the model's input are generated completion tokens.

    Args:
        action_mask: 1 where the *next* token was generated; one shorter than the rows.
        attention_mask: 1 on tokens, 0 on padding.
        packed: Whether the model runs on ``[1, total]`` without padding.

    Returns:
        (mask [batch, tokens], None), or (mask [total], offsets [batch + 1]) when packed.
    """
    real = attention_mask.bool()
    mask = torch.nn.functional.pad(action_mask.bool(), (1, 0)) & real
    if not packed:
        return mask, None
    return mask[real], torch.nn.functional.pad(real.sum(dim=1).cumsum(dim=0), (1, 0))


class SpeechActor(Actor):
    """``Actor`` around a speech model, of its text decoder and, unless frozen, of its encoders.

    OpenRLHF asks ``is_vlm`` for two things: whether a model takes multimodal inputs and whether a forward lets the model
    compute its positions from images. A speech model takes inputs, and positions that count tokens.
    """

    def __init__(self, pretrain: str, *args: Any, freeze_visual_encoder: bool = False, **kwargs: Any) -> None:
        family = checkpoint_family(pretrain)
        if family is None:
            raise ValueError(f"expected a checkpoint of a known speech model family, got {pretrain}")
        loader = _Loader(family, frozen=freeze_visual_encoder)
        for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText"):
            replace(stock_models, name, loader)
        super().__init__(pretrain, *args, **kwargs)
        self.is_vlm = True
        if freeze_visual_encoder and is_lora(self.model):
            # An adapter that is not trained adds nothing, and the encoder still encodes each clip once.
            for path in {*family.towers, *family.audio_path}:
                self.model.get_base_model().get_submodule(path).requires_grad_(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Stock forward of a model of text, with the audio features among its inputs."""
        if "input_features" in kwargs:
            kwargs["input_features"] = kwargs["input_features"].to(next(self.model.parameters()).dtype)
        self.is_vlm = False
        try:
            return super().forward(*args, **kwargs)
        finally:
            self.is_vlm = True


class FrozenSpeechActor(SpeechActor):
    """`SpeechActor` that is never trained, so that it encodes each clip once."""

    def __init__(self, pretrain: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(pretrain, *args, freeze_visual_encoder=True, **kwargs)


def merge_features(mm_train_inputs_list: Sequence[Any], device: Any) -> dict[str, Tensor]:
    """Stands for OpenRLHF's ``merge_mm_train_inputs``, which joins features of equal length only.

    Args:
        mm_train_inputs_list: Features of each rollout of a micro-batch, None for those without audio, in lists or not.
        device: Where they go.
    """
    from tars_rewards.speech.processors import join_features

    flat = [each for item in mm_train_inputs_list for each in (item if isinstance(item, list) else [item])]
    spoken = [each for each in flat if each is not None]
    return {name: value.to(device) for name, value in join_features(spoken).items()} if spoken else {}


class _Loader:
    """Stands for ``transformers``' auto classes where OpenRLHF loads a model."""

    def __init__(self, family: TrainableFamily, *, frozen: bool) -> None:
        self._family, self._frozen = family, frozen

    def from_pretrained(self, name: str, **kwargs: Any) -> Any:
        import transformers

        from tars_rewards.speech.policy import prepare_model
        from tars_rewards.speech.processors import load_processor

        model = getattr(transformers, self._family.model_class).from_pretrained(name, **kwargs)
        never = load_processor(name, self._family).never_sampled()
        prepare_model(model, self._family, never_sampled=never, frozen=self._frozen)
        if self._frozen:
            for path in self._family.audio_path:  # the projector too, as OpenRLHF's flag says
                model.get_submodule(path).requires_grad_(False)
        return model
