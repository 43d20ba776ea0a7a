"""A trained policy, saved and published: what Hugging Face reads of it, and the names that vLLM and others expect."""

import json
import re
import shutil

import pytest
import torch
from safetensors import safe_open
from tiny_models import make_qwen2_5_omni, make_qwen2_audio

from tars_rewards.errors import AdapterError
from tars_rewards.speech.checkpoint import checkpoint_family, checkpoint_model_type, publish
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
BOTH = pytest.mark.parametrize("name", FAMILIES)
# Qwen/Qwen2-Audio-7B-Instruct and Qwen/Qwen2.5-Omni-7B, model.safetensors.index.json: one name of each part.
PUBLISHED = {
    "qwen2_audio": {
        "audio_tower.conv1.weight",
        "audio_tower.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "language_model.model.norm.weight",
        "language_model.lm_head.weight",
    },
    "qwen2_5_omni": {
        "thinker.audio_tower.conv1.weight",
        "thinker.audio_tower.layers.0.self_attn.q_proj.weight",
        "thinker.audio_tower.proj.weight",
        "thinker.visual.blocks.0.attn.q.weight",
        "thinker.model.embed_tokens.weight",
        "thinker.model.layers.0.self_attn.q_proj.weight",
        "thinker.model.norm.weight",
        "thinker.lm_head.weight",
    },
}
# What every name of the two index files looks like.
PATTERN = {
    "qwen2_audio": re.compile(
        r"(audio_tower\.(conv|embed_pos|lay)|multi_modal_projector\.lin|language_model\.(model\.(embed_t|layers\.|norm)|lm_h))"
    ),
    "qwen2_5_omni": re.compile(r"thinker\.(audio_tower\.|visual\.|model\.(embed_tokens|layers\.|norm)|lm_head)"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    directory = tmp_path_factory.mktemp("published")
    return {
        "qwen2_audio": make_qwen2_audio(directory / "qwen2_audio"),
        "qwen2_5_omni": make_qwen2_5_omni(directory / "qwen2_5_omni"),
    }


def load(path, name):
    import transformers

    return getattr(transformers, FAMILIES[name].model_class).from_pretrained(path, dtype=torch.float32)


def trained(source, name, directory, **kwargs):
    """Saved as a trainer does: the trained part, after a step, with the processor's files beside it."""
    model = load(source, name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5
    model.save_pretrained(directory, **kwargs)
    for file in source.iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            shutil.copy(file, directory)
    return model


def names_in(directory):
    found = set()
    for file in directory.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found |= set(opened.keys())
    return found


@BOTH
@pytest.mark.parametrize("shards", ["5GB", "100KB"])
def test_a_published_policy_has_the_published_names_and_the_weights_that_were_trained(sources, tmp_path, name, shards):
    model = trained(sources[name], name, tmp_path, max_shard_size=shards)
    assert len(list(tmp_path.glob("*.safetensors"))) > (1 if shards == "100KB" else 0)
    publish(tmp_path, str(sources[name]), FAMILIES[name])
    names = names_in(tmp_path)
    assert names >= PUBLISHED[name]
    assert len(names) == len(model.state_dict())
    assert all(PATTERN[name].match(each) for each in names)
    index = tmp_path / "model.safetensors.index.json"
    if shards == "100KB":
        assert set(json.loads(index.read_text())["weight_map"]) == names
    again = load(tmp_path, name).state_dict()
    for label, tensor in model.state_dict().items():
        assert torch.equal(again[label], tensor), label


@BOTH
def test_it_can_be_trained_on_and_published_again(sources, tmp_path, name):
    trained(sources[name], name, tmp_path / "first")
    publish(tmp_path / "first", str(sources[name]), FAMILIES[name])
    assert checkpoint_model_type(str(tmp_path / "first")) == FAMILIES[name].checkpoint_type
    assert checkpoint_family(str(tmp_path / "first")) is FAMILIES[name]
    model = trained(tmp_path / "first", name, tmp_path / "second")
    publish(tmp_path / "second", str(tmp_path / "first"), FAMILIES[name])
    assert names_in(tmp_path / "second") == names_in(tmp_path / "first")
    again = load(tmp_path / "second", name).state_dict()
    assert all(torch.equal(again[label], tensor) for label, tensor in model.state_dict().items())


@BOTH
def test_publishing_twice_changes_nothing(sources, tmp_path, name):
    trained(sources[name], name, tmp_path)
    publish(tmp_path, str(sources[name]), FAMILIES[name])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    publish(tmp_path, str(sources[name]), FAMILIES[name])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_config_is_the_sources_with_the_trained_part_in_its_place(sources, tmp_path):
    trained(sources["qwen2_5_omni"], "qwen2_5_omni", tmp_path)
    part = json.loads((tmp_path / "config.json").read_text())
    publish(tmp_path, str(sources["qwen2_5_omni"]), QWEN2_5_OMNI)
    expected = json.loads((sources["qwen2_5_omni"] / "config.json").read_text())
    expected |= {"thinker_config": part, "enable_audio_output": False}
    assert json.loads((tmp_path / "config.json").read_text()) == expected


def test_a_policy_that_began_as_the_part_alone_stays_one(sources, tmp_path):
    trained(sources["qwen2_5_omni"], "qwen2_5_omni", tmp_path / "part")
    before = names_in(tmp_path / "part")
    trained(tmp_path / "part", "qwen2_5_omni", tmp_path / "trained")
    publish(tmp_path / "trained", str(tmp_path / "part"), QWEN2_5_OMNI)
    assert names_in(tmp_path / "trained") == before
    assert checkpoint_model_type(str(tmp_path / "trained")) == "qwen2_5_omni_thinker"


@BOTH
def test_a_directory_without_weights_is_named(sources, tmp_path, name):
    with pytest.raises(AdapterError, match=r"expected a saved model in .*, found no \*\.safetensors"):
        publish(tmp_path, str(sources[name]), FAMILIES[name])


@BOTH
def test_vllm_finds_its_own_model_for_a_published_policy(sources, tmp_path, name):
    config = pytest.importorskip("vllm.config")
    trained(sources[name], name, tmp_path)
    publish(tmp_path, str(sources[name]), FAMILIES[name])
    found = config.ModelConfig(model=str(tmp_path), dtype="float32")
    assert found.is_multimodal_model
    known = {
        "qwen2_audio": "Qwen2AudioForConditionalGeneration",
        "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    }
    assert found._model_info.architecture == known[name]


def test_what_has_no_config_has_no_family(tmp_path):
    assert checkpoint_model_type(str(tmp_path)) is None
    assert checkpoint_family(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert checkpoint_model_type(str(tmp_path)) == "qwen2"
    assert checkpoint_family(str(tmp_path)) is None
