"""A LoRA policy: what vLLM is given and what is saved are the adapted weights under the model's own names."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tars_rewards.speech.checkpoint import publish
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards_openrlhf import cpu, lora

cpu.install()
import openrlhf.models.actor as stock_models  # noqa: E402
from openrlhf.models import Actor  # noqa: E402

from tars_rewards_openrlhf.policy import SpeechActor  # noqa: E402

FAMILIES = {"text": None, "qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
RANK = {"lora_rank": 8, "lora_alpha": 32, "target_modules": "all-linear", "attn_implementation": "sdpa"}


@pytest.fixture(autouse=True)
def stock_loaders(monkeypatch):
    for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText"):
        monkeypatch.setattr(stock_models, name, getattr(stock_models, name))


def adapted(directory, name, **flags):
    """An actor in its dtype whose adapters have been trained, as if."""
    actor = (Actor if name == "text" else SpeechActor)(str(directory), **RANK, **flags)
    actor.model.to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for parameter in actor.model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator).mul_(0.05).to(torch.bfloat16)
    return actor


class Trainer:
    """The stock push as far as it concerns names: remembers what went to vLLM."""

    def __init__(self, actor):
        self.actor = SimpleNamespace(model=SimpleNamespace(module=actor.model), is_vlm=True)
        self.pushed, self.pushes = {}, []

    def broadcast_to_vllm(self):
        weights = dict(self.actor.model.module.named_parameters())
        assert all(weight.ds_shape == weight.shape for weight in weights.values())
        assert not getattr(self.actor, "is_vlm", False)
        self.pushes.append(len(weights))
        self.pushed |= weights


def by_peft(model):
    """All weights of a model after PEFT's own merge, in float32."""
    merged = model.float().merge_and_unload()
    return dict(merged.state_dict())


@pytest.mark.parametrize(
    ("name", "flag"),
    [(name, flag) for name in FAMILIES for flag in ({}, {"freeze_visual_encoder": True}) if FAMILIES[name] or not flag],
)
def test_vllm_gets_every_adapted_weight_merged_under_its_own_name(tiny, name, flag):
    actor = adapted(tiny / name, name, **flag)
    before = {key: value.clone() for key, value in actor.model.state_dict().items()}
    trainer = Trainer(actor)
    policy = trainer.actor
    lora.push_merged(trainer)
    assert trainer.actor is policy
    assert all(torch.equal(value, before[key]) for key, value in actor.model.state_dict().items())
    assert max(trainer.pushes) <= lora.PUSHED_AT_ONCE
    assert any("audio_tower" in key for key in trainer.pushed) == (FAMILIES[name] is not None and not flag)
    base = {key.replace(".base_layer", ""): value for key, value in before.items()}
    expected = by_peft(actor.model)
    changed = {
        key for key, value in expected.items() if not torch.equal(value.bfloat16(), base[f"base_model.model.{key}"])
    }
    assert trainer.pushed.keys() == changed
    for key, value in trainer.pushed.items():
        torch.testing.assert_close(value.float(), expected[key], rtol=2**-7, atol=1e-3)  # an adapter adds 3e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_a_whole_model_and_the_adapter_beside_it(tiny, tmp_path, name):
    actor = adapted(tiny / name, name)
    actor.model.save_pretrained(tmp_path)
    lora.save_merged(actor.model, str(tmp_path), write=True)
    if FAMILIES[name]:
        publish(tmp_path, str(tiny / name), FAMILIES[name])
    found, original = load_file(tmp_path / "model.safetensors"), load_file(tiny / name / "model.safetensors")
    named = FAMILIES[name].published_name if FAMILIES[name] else str
    expected = {named(key): value.shape for key, value in original.items()}
    assert {key: value.shape for key, value in found.items()} == expected
    assert sorted(file.name for file in (tmp_path / lora.ADAPTER).iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not list(tmp_path.glob("adapter_*"))
    if name == "text":
        ids = torch.arange(3, 40)[None]
        with torch.no_grad():
            loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)(ids).logits
            expected = actor.model(ids).logits
            plain = AutoModelForCausalLM.from_pretrained(tiny / name, dtype=torch.bfloat16)(ids).logits
        assert (loaded - expected).abs().max() < 0.1 * (plain - expected).abs().max()
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["r"] == 8


def test_a_rank_that_does_not_write_leaves_the_directory_alone(tiny, tmp_path):
    lora.save_merged(adapted(tiny / "text", "text").model, str(tmp_path), write=False)
    assert not list(tmp_path.iterdir())
