"""LoRA adapters that are for listening only: loaded where they lie, on for the rows with a clip."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tars_rewards.errors import ConfigError, MissingDependencyError, UnsupportedConfigError
from tars_rewards.speech.model import SpeechModel
from tars_rewards.speech.scored_families import PHI_4_MULTIMODAL

CLIP = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)


@pytest.fixture
def copy(loaded, tmp_path):
    """Gives a copy of a family's tiny checkpoint that may be spoiled."""

    def make(name):
        return shutil.copytree(loaded(name).directory, tmp_path / name)

    return make


def set_config(directory, **values):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@torch.no_grad()
def logits(speech, prompts):
    batch = speech.batch(prompts, padding="right")
    output = speech.model(**batch).logits
    return [row[mask.bool()][-1] for row, mask in zip(output, batch["attention_mask"], strict=True)]


def prompts(speech):
    heard = speech.prompt(question=None, media=CLIP, instruction="Answer.")
    return heard, speech.prompt(question="Why?", media=None, instruction="Answer.")


@pytest.mark.parametrize("name", ["granite_speech", "phi4_multimodal"])
def test_reading_is_the_same_without_the_adapter_and_listening_is_not(loaded, name):
    speech = loaded(name).speech
    heard, read = prompts(speech)
    layers = [module for module in speech.model.modules() if hasattr(module, "lora_B")]
    weights = [parameter for layer in layers for parameter in layer.lora_B.parameters()]
    assert weights
    before = logits(speech, [heard, read])
    kept = [weight.clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
    without = logits(speech, [heard, read])
    with torch.no_grad():
        for weight, old in zip(weights, kept, strict=True):
            weight.copy_(old)
    assert (before[0] - without[0]).abs().max() > 1e-2
    torch.testing.assert_close(before[1], without[1], rtol=0, atol=1e-6)


def test_a_models_own_generate_does_not_switch_it_off_for_good(loaded):
    speech = loaded("granite_speech").speech
    heard, read = prompts(speech)
    before = logits(speech, [heard])[0]
    speech.model.generate(**speech.batch([read], padding="left"), max_new_tokens=2, do_sample=False)
    torch.testing.assert_close(logits(speech, [heard])[0], before, rtol=0, atol=1e-6)


def test_loading_the_adapter_leaves_the_models_own_weights_as_they_are(loaded):
    family = loaded("phi4_multimodal")
    loaded_weights = family.speech.model.state_dict()
    for name, weight in load_file(family.directory / "model.safetensors").items():
        inside = name.replace("_proj.weight", "_proj.base_layer.weight")
        torch.testing.assert_close(loaded_weights[inside if inside in loaded_weights else name], weight)


def test_the_adapters_weights_are_the_files(copy):
    directory = copy("phi4_multimodal")
    file = directory / "speech-lora" / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(weight) for name, weight in load_file(file).items()}, file, {"format": "pt"})
    speech = SpeechModel.load(directory, device="cpu")
    weights = [weight for name, weight in speech.model.named_parameters() if "lora_" in name]
    assert weights
    assert not any(weight.any() for weight in weights)


def test_a_missing_adapter_is_not_passed_over(copy):
    directory = copy("phi4_multimodal")
    shutil.rmtree(directory / "speech-lora")
    with pytest.raises(ConfigError, match=r"LoRA adapter of Phi-4-multimodal in .*speech-lora"):
        SpeechModel.load(directory, device="cpu")
    SpeechModel.load(directory, device="cpu", family=replace(PHI_4_MULTIMODAL, adapter=""))
    directory = copy("granite_speech")
    (directory / "adapter_config.json").unlink()
    with pytest.raises(UnsupportedConfigError, match="has_lora_adapter to false"):
        SpeechModel.load(directory, device="cpu")


def test_a_checkpoint_may_do_without_where_its_config_says_so(copy):
    directory = copy("granite_speech")
    (directory / "adapter_config.json").unlink()
    set_config(directory, has_lora_adapter=False)
    speech = SpeechModel.load(directory, device="cpu")
    assert len(logits(speech, prompts(speech))) == 2


def test_peft_is_asked_for_by_name(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match="pip install peft"):
        SpeechModel.load(loaded("phi4_multimodal").directory, device="cpu")
