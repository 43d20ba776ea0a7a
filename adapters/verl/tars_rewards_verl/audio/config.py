"""What audio needs of verl's config and the user need not set."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf, open_dict

from tars_rewards.speech.families import find_trainable
from tars_rewards_verl.audio.training import FROZEN
from tars_rewards_verl.refusal import refuse, setting

_MODEL = "actor_rollout_ref.model"


def check_config(config: DictConfig) -> None:
    """Refuse what speech models cannot be trained with.

    Raises:
        UnsupportedConfigError: Names the key, its value, why it cannot work and what to set instead.
    """
    freeze, model_type = "actor_rollout_ref.actor.freeze_vision_tower", _model_type(config)
    if model_type is None and setting(config, freeze, False):
        refuse(
            config,
            freeze,
            f"the checkpoint's config cannot be read here ({_MODEL}.path={setting(config, f'{_MODEL}.path')}), so nothing "
            "tells which encoders to freeze; copy the checkpoint to a path that every node sees, the driver's too",
        )
    family = find_trainable(model_type)
    if family is None:
        return
    if setting(config, f"{_MODEL}.use_fused_kernels", False):
        refuse(
            config,
            f"{_MODEL}.use_fused_kernels",
            f"verl's fused forward takes no audio features, and {family.name} would hear nothing; set it to False",
        )
    if setting(config, "actor_rollout_ref.rollout.name") != "vllm":
        refuse(
            config,
            "actor_rollout_ref.rollout.name",
            f"audio reaches {family.name} through verl's vLLM rollout alone; set it to vllm",
        )
    merged = setting(config, f"{_MODEL}.lora.merge", False)
    if _lora(config) and not merged and not family.vllm_lora:
        refuse(
            config,
            f"{_MODEL}.lora.merge",
            f"vLLM's {family.name} takes no LoRA adapters; set it to True, so that merged weights are pushed",
        )


def _lora(config: DictConfig) -> bool:
    rank = max(setting(config, f"{_MODEL}.{key}", 0) for key in ("lora_rank", "lora.rank"))
    return rank > 0 or bool(setting(config, f"{_MODEL}.lora_adapter_path"))


def prepare_config(config: DictConfig) -> None:
    """Fill in what speech models need; what the user has set stays. Safe to call twice, and for models without audio.

    ``actor_rollout_ref.actor.freeze_vision_tower``, which no engine of verl 0.9 reads, is made to mean what it says for
    speech models: the encoders of other modalities stay as they are.

    Args:
        config: verl's trainer config, resolved or not.
    """
    model = config.actor_rollout_ref.model
    actor = config.actor_rollout_ref.actor
    with open_dict(config):
        if not OmegaConf.select(config, "data.custom_cls.path"):
            config.data.custom_cls = {"path": "pkg://tars_rewards_verl.audio.dataset", "name": "SpeechDataset"}
        family = find_trainable(_model_type(config))
        if family is None:
            return
        frozen = bool(actor.get("freeze_vision_tower", False))
        model.setdefault("override_config", {})
        model.override_config.setdefault(FROZEN, frozen)
        if frozen and actor.strategy == "fsdp":
            # FSDP1 flattens what it shards into one parameter, which cannot be frozen in part.
            actor.fsdp_config.use_orig_params = True
        if model.get("lora_rank", 0) > 0 and model.get("exclude_modules") is None:
            # "all-linear" would reach into the encoders, for which vLLM takes no adapters.
            model.exclude_modules = rf".*\b({'|'.join(sorted({path.split('.')[-1] for path in family.towers}))})\b.*"
        engine = config.actor_rollout_ref.rollout.setdefault("engine_kwargs", {})
        if engine.get("vllm") is None:
            engine.vllm = {}
        unused = {name: 0 for name in ("image", "video") if f"{name}_token" in family.reserved}
        if unused:
            # vLLM then neither builds a vision tower nor reserves memory for what could go through it.
            engine.vllm.setdefault("limit_mm_per_prompt", unused)


def _model_type(config: DictConfig) -> str | None:
    """``model_type`` of the checkpoint; None if its config cannot be read here."""
    from tars_rewards.speech.checkpoint import checkpoint_model_type

    path = str(config.actor_rollout_ref.model.path)
    # A remote file system's checkpoint is copied to the workers, not to the driver: nothing to look at here.
    return None if "://" in path else checkpoint_model_type(path)
