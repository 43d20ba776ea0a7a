"""The trained speech models: encoder cache, frozen towers, masked logits; against plain Hugging Face ones."""

import pytest
import torch
from speech_models import FAMILIES, inputs_for, load, prepared, verl_configs

from tars_rewards.speech.checkpoint import checkpoint_family
from tars_rewards.speech.encoder_cache import EncoderCache
from tars_rewards.speech.families import QWEN2_5_OMNI
from tars_rewards.speech.policy import NEVER

BOTH = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def configs(tiny):
    return verl_configs(tiny)


@BOTH
def test_verl_loads_the_part_that_is_trained(configs, tiny, name):
    config, family = configs[name], FAMILIES[name]
    assert checkpoint_family(str(tiny / name)) is family
    assert config.hf_config.model_type == family.model_type
    assert config.hf_config.tie_word_embeddings is False
    assert config.architectures == [family.model_class]
    model = load(config)
    assert type(model).__name__ == family.model_class
    assert type(model.get_submodule(family.audio_tower)).__name__.endswith("AudioEncoder")
    assert hasattr(model.get_submodule(family.decoder), "embed_tokens")


def test_other_checkpoints_are_nobodys(tiny, tmp_path):
    assert checkpoint_family(str(tiny / "text")) is None
    assert checkpoint_family(str(tmp_path)) is None


@BOTH
def test_a_clip_is_encoded_once_and_the_output_stays(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    plain = load(config)
    model, cache = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0], clips[2], clips[0], None, clips[4], clips[2]])
    with torch.no_grad():
        expected = plain(**batch).logits
        for _ in range(2):
            torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-6)
    assert (cache.clips, cache.encoded) == (10, 3)
    # Another mixture of known and new clips.
    batch = inputs_for(config.processor, [clips[i] for i in (6, 2)])
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, plain(**batch).logits, rtol=0, atol=1e-6)
    assert (cache.clips, cache.encoded) == (12, 4)


@BOTH
def test_gradients_are_those_without_a_cache(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    plain = load(config)
    plain.get_submodule(family.audio_tower).requires_grad_(False)
    model, cache = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0], clips[2], clips[0]])
    for each in (plain, model, model):
        each.zero_grad()
        each.train()(**batch).logits.log_softmax(-1)[..., 40].sum().backward()
    assert cache.encoded == 2
    trained = 0
    for (label, theirs), (_, ours) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        assert (theirs.grad is None) == (ours.grad is None), label
        if theirs.grad is not None:
            trained += 1
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=label)
    assert trained > 10


@BOTH
def test_silence_is_another_clip(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    model, _ = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0]])
    with torch.no_grad():
        heard = model(**batch).logits
        silenced = model(**{**batch, "input_features": torch.zeros_like(batch["input_features"])}).logits
    assert (heard - silenced).abs().max() > 1e-2


@BOTH
def test_the_cache_stands_back_while_the_encoder_can_change(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    batch = inputs_for(config.processor, [clips[0], clips[0]])
    model, cache = prepared(config, family, frozen=False)
    model(**batch).logits.sum().backward()
    assert (cache.clips, cache.encoded) == (0, 0)
    assert all(
        parameter.grad is not None
        for label, parameter in model.get_submodule(family.audio_tower).named_parameters()
        if label.startswith("layers")
    )
    model, cache = prepared(config, family)
    tower = model.get_submodule(family.audio_tower)
    dropout = tower.config.attention_dropout
    tower.config.attention_dropout = 0.1
    try:
        model.train()(**batch)
        assert cache.clips == 0
        model.eval()(**batch)
        assert cache.clips == 2
    finally:
        tower.config.attention_dropout = dropout


@BOTH
def test_loading_weights_empties_the_cache(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    model, cache = prepared(config, family)
    batch = inputs_for(config.processor, [clips[0]])
    with torch.no_grad():
        before = model(**batch).logits
        doubled = {key: value * 2 if "conv1.bias" in key else value for key, value in model.state_dict().items()}
        model.load_state_dict({key: value + 0.5 if "conv1.bias" in key else value for key, value in doubled.items()})
        assert (model(**batch).logits - before).abs().max() > 1e-3
    assert cache.encoded == 2


def test_the_cache_keeps_to_its_memory_and_drops_the_oldest(configs, clips):
    config, family = configs["qwen2_5_omni"], QWEN2_5_OMNI
    model = load(config)
    tower = model.get_submodule(family.audio_tower).requires_grad_(False)
    one_output = 12 * tower.config.output_dim * 4
    cache = EncoderCache(tower, family, max_bytes=2 * one_output).install()
    for clip, encoded in ((0, 1), (2, 2), (0, 2), (4, 3), (0, 3), (2, 4)):
        with torch.no_grad():
            model(**inputs_for(config.processor, [clips[clip]]))
        assert cache.encoded == encoded, clip
        assert cache._bytes <= 2 * one_output


@BOTH
def test_prompt_only_tokens_get_no_probability_and_the_rest_are_renormalised(configs, clips, name):
    config, family = configs[name], FAMILIES[name]
    banned = config.processor.never_sampled()
    plain = load(config)
    model, _ = prepared(config, family, never_sampled=banned)
    batch = inputs_for(config.processor, [clips[0]])
    with torch.no_grad():
        logits = plain(**batch).logits
        logits[..., banned] = float("-inf")
        ours = model(**batch).logits
    assert (ours[..., banned] == NEVER).all()
    probabilities = ours.softmax(-1)
    torch.testing.assert_close(probabilities, logits.softmax(-1), rtol=0, atol=1e-6)
    entropy = -(probabilities * ours.log_softmax(-1)).sum(-1)
    assert torch.isfinite(entropy).all()
