"""The tiny speech models as verl's engine loads them, and inputs for them."""

from __future__ import annotations

import torch
from verl.utils.model import get_hf_auto_model_class
from verl.workers.config.model import HFModelConfig

from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards.speech.policy import prepare_model

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}


def load(config):
    """As verl's engine does."""
    auto = get_hf_auto_model_class(config.hf_config)
    return auto.from_pretrained(config.local_path, config=config.hf_config, dtype=torch.float32).eval()


def inputs_for(processor, clips):
    """One row per clip; None is a row of text as long as the others."""
    text = "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>2<|im_end|>\n"
    known = [clip for clip in clips if clip is not None]
    spoken = processor(text=[text], audio=known[:1], return_tensors="pt")["input_ids"][0]
    written = torch.full_like(spoken, 40)
    ids = torch.stack([written if clip is None else spoken for clip in clips])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids),
        "use_cache": False,
        **processor.features(known),
    }


def prepared(config, family, *, frozen=True, never_sampled=()):
    model = load(config)
    prepare_model(model, family, never_sampled=never_sampled, frozen=frozen)
    return model, model.get_submodule(family.audio_tower).forward


def verl_configs(directory):
    """verl's model config of each family's tiny model."""
    return {
        name: HFModelConfig(path=str(directory / name), override_config={"attn_implementation": "sdpa"})
        for name in FAMILIES
    }
