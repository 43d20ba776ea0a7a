"""The trained speech model in verl's FSDP engine."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from tars_rewards.integration.patching import after_import, check_signature, replace, require_attribute
from tars_rewards.speech.checkpoint import publish
from tars_rewards.speech.families import find_trainable
from tars_rewards_verl.audio.ulysses import cut_embeddings

FROZEN = "freeze_towers"
"""Key of ``actor_rollout_ref.model.override_config``: whether the encoders of other modalities stay as they are."""


def install() -> None:
    """Arrange for the engine and its sharding to be patched."""
    after_import("verl.workers.engine.fsdp.transformer_impl", _prepare_models)
    after_import("verl.workers.engine.fsdp.transformer_impl", _publish_checkpoints)
    after_import("verl.utils.fsdp_utils", _spare_the_tower)


def _prepare_models(module: ModuleType) -> None:
    engine = require_attribute(module, "FSDPEngine", module.__name__)
    stock = require_attribute(engine, "_build_module", "verl FSDPEngine")
    check_signature(stock, ["self"], "verl FSDPEngine._build_module")

    @functools.wraps(stock)
    def build_module(self: Any) -> Any:
        model = stock(self)
        config = self.model_config
        family = find_trainable(getattr(config.hf_config, "model_type", None))
        if family is not None and config.model_type == "language_model":
            from tars_rewards.speech.policy import prepare_model

            prepare_model(
                model,
                family,
                never_sampled=config.processor.never_sampled() if config.processor is not None else [],
                frozen=bool((config.override_config or {}).get(FROZEN, False)),
            )
            if self.use_ulysses_sp:
                cut_embeddings(model, family)
        return model

    engine._build_module = build_module


def _publish_checkpoints(module: ModuleType) -> None:
    """What verl saves as ``hf_model`` gets the names of a published checkpoint, which vLLM loads and verl trains on.

    Done by the rank that wrote it: the directory may be on its node alone.
    """
    engine = require_attribute(module, "FSDPEngine", module.__name__)
    stock = require_attribute(engine, "save_checkpoint", "verl FSDPEngine")
    check_signature(
        stock,
        ["self", "local_path", "hdfs_path", "global_step", "max_ckpt_to_keep", "kwargs"],
        "verl FSDPEngine.save_checkpoint",
    )

    @functools.wraps(stock)
    def save_checkpoint(self: Any, local_path: str | None, *args: Any, **kwargs: Any) -> None:
        stock(self, local_path, *args, **kwargs)
        family = find_trainable(getattr(self.model_config.hf_config, "model_type", None))
        saved = local_path is not None and self.rank == 0 and self.checkpoint_manager.should_save_hf_model
        if family is None or not saved or self.model_config.model_type != "language_model":
            return
        directory = os.path.join(str(local_path), "huggingface")
        if hasattr(getattr(self.module, "_fsdp_wrapped_module", self.module), "peft_config"):
            print(
                f"tars-rewards: {directory} has the base weights and the LoRA adapters apart, as verl saves them; merge them "
                "before you load it",
                flush=True,
            )
            return
        publish(directory, self.model_config.local_path, family)

    engine.save_checkpoint = save_checkpoint


def _spare_the_tower(module: ModuleType) -> None:
    """FSDP2 shards every embedding by itself; Whisper's encoder reads the weight of one without calling it."""
    stock = require_attribute(module, "_select_fsdp2_wrap_targets", module.__name__)
    check_signature(
        stock, ["model", "fsdp_transformer_layer_cls_to_wrap"], f"{module.__name__}._select_fsdp2_wrap_targets"
    )

    @functools.wraps(stock)
    def select_fsdp2_wrap_targets(model: Any, fsdp_transformer_layer_cls_to_wrap: Iterable[str]) -> list[Any]:
        targets: list[Any] = stock(model, fsdp_transformer_layer_cls_to_wrap)
        family = find_trainable(getattr(model.config, "model_type", None))
        if family is None:
            return targets
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        inside = set(base.get_submodule(family.audio_tower).modules())
        return [target for target in targets if target not in inside]

    replace(module, "_select_fsdp2_wrap_targets", select_fsdp2_wrap_targets)
