"""The text decoder is found in every kind of model and behind every wrapper, and never a tower."""

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperModel,
)

from tars_rewards.capture import capture_hidden_states
from tars_rewards.decoder_layers import decoder_layers
from tars_rewards.errors import CaptureError

SPECIAL = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
HEADS = dict(num_attention_heads=2, num_key_value_heads=2)
TEXT = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, **HEADS, **SPECIAL)
MROPE = dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3]))
AUDIO = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=8)
AUDIO_TOKEN, FRAMES = 60, 40


def qwen2():
    return Qwen2ForCausalLM(Qwen2Config(**TEXT))


def llama():
    return LlamaForCausalLM(LlamaConfig(**TEXT))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=2, **SPECIAL))


def whisper():
    sizes = dict(decoder_layers=3, decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=64)
    return WhisperModel(WhisperConfig(**AUDIO, **sizes, **SPECIAL, decoder_start_token_id=1))


def qwen2_audio():
    text = dict(model_type="qwen2", **TEXT)
    audio = dict(AUDIO, max_source_positions=FRAMES // 2)
    config = Qwen2AudioConfig(text_config=text, audio_config=audio, audio_token_index=AUDIO_TOKEN)
    return Qwen2AudioForConditionalGeneration(config)


def qwen2_5_omni_thinker():
    vision = dict(depth=2, hidden_size=16, intermediate_size=32, num_heads=2, out_hidden_size=32)
    tokens = dict(audio_token_index=AUDIO_TOKEN, image_token_index=61, video_token_index=62)
    others = dict(audio_start_token_id=58, audio_end_token_id=59, vision_start_token_id=57, vision_end_token_id=56)
    config = Qwen2_5OmniThinkerConfig(
        text_config=dict(TEXT, **MROPE),
        audio_config=dict(AUDIO, max_source_positions=FRAMES, n_window=10, output_dim=32),
        vision_config=dict(vision, patch_size=2, fullatt_block_indexes=[1]),
        **tokens,
        **others,
    )
    config.spatial_merge_size, config.seconds_per_chunk, config.position_id_per_seconds = 2, 2, 25
    return Qwen2_5OmniThinkerForConditionalGeneration(config)


def qwen2_vl():
    vision = dict(depth=2, embed_dim=16, hidden_size=32, num_heads=2, patch_size=2)
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=dict(TEXT, **MROPE), vision_config=vision))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (qwen2, "model.layers"),
        (llama, "model.layers"),
        (gpt2, "transformer.h"),
        (whisper, "decoder.layers"),
        (qwen2_audio, "model.language_model.layers"),
        (qwen2_5_omni_thinker, "model.layers"),
        (qwen2_vl, "model.language_model.layers"),
    ],
)
def test_finds_the_text_decoder(build, name):
    model = build()
    found = decoder_layers(model)
    assert len(found) == 3  # every tower has two
    assert found == list(model.get_submodule(name))
    assert found == decoder_layers(model, layers=name) == decoder_layers(model, layers=model.get_submodule(name))


@pytest.mark.parametrize("build", [qwen2_audio, qwen2_5_omni_thinker])
def test_pooled_states_of_an_audio_model_equal_a_plain_forward_and_move_with_the_audio(build):
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():  # states of order 1, so that a tolerance of 1e-5 means something
        for weight in model.parameters():
            weight.mul_(10 if weight.dim() > 1 else 1)
    prompt = [1, 58, *[AUDIO_TOKEN] * (FRAMES // 4), 59]
    ids = torch.tensor([[*prompt, 5, 6, 7, 8], [*prompt, 9, 10, 11, 12]])
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[0, -4:], mask[1, -4:-1] = True, True
    frames = torch.ones(2, FRAMES, dtype=torch.long)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), feature_attention_mask=frames)
    audio = torch.randn(2, 8, FRAMES)
    with torch.no_grad():
        with capture_hidden_states(model, mask) as captured:
            model(**inputs, input_features=audio)
        plain = model(**inputs, input_features=audio, output_hidden_states=True).hidden_states
        with capture_hidden_states(model, mask) as silenced:
            model(**inputs, input_features=torch.zeros_like(audio))
    assert len(plain) == 4  # embeddings and three layers, the last one after the norm
    for layer in (0, 1):
        expected = torch.stack([plain[layer + 1][0, -4:].mean(0), plain[layer + 1][1, -4:-1].mean(0)])
        torch.testing.assert_close(captured.pooled[:, layer], expected, rtol=0, atol=1e-5)
    assert ((captured.pooled - silenced.pooled).abs().amax(dim=(1, 2)) > 0.01).all()


class Tower(nn.Module):
    """Layers without token embeddings beside them."""

    def __init__(self, layers=2) -> None:
        super().__init__()
        self.embed_positions = nn.Embedding(5, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(layers))


class Decoder(Tower):
    def __init__(self, layers=2) -> None:
        super().__init__(layers)
        self.embed_tokens = nn.Embedding(5, 4)


class TwoDecoders(nn.Module):
    """A thinker and a talker."""

    def __init__(self, prompt_goes_into: str | None) -> None:
        super().__init__()
        self.talker, self.thinker, self.prompt_goes_into = Decoder(), Decoder(), prompt_goes_into

    def get_input_embeddings(self):
        if self.prompt_goes_into is None:
            raise NotImplementedError
        return getattr(self, self.prompt_goes_into).embed_tokens


@pytest.mark.parametrize("name", ["talker", "thinker"])
def test_of_two_decoders_the_one_that_embeds_the_prompt(name):
    model = TwoDecoders(name)
    assert decoder_layers(nn.ModuleDict({"wrapped": model})) == list(getattr(model, name).layers)


def test_two_decoders_and_nothing_to_tell_them_apart():
    model = TwoDecoders(None)
    with pytest.raises(CaptureError, match=r"expected one text decoder .* found 'talker', 'thinker'") as caught:
        decoder_layers(model)
    assert "'thinker.layers' (2 x Linear)" in str(caught.value)
    assert decoder_layers(model, layers="thinker.layers") == list(model.thinker.layers)


def test_an_encoder_that_reads_tokens_too_needs_a_word_from_the_user():
    sizes = dict(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
    with pytest.raises(CaptureError, match="found 'encoder', 'decoder'"):
        decoder_layers(model)


def test_a_wrapper_that_answers_for_what_it_wraps_is_no_second_decoder():
    model = Decoder()
    wrapped = torch.compile(model, backend="eager")
    assert wrapped.embed_tokens is model.embed_tokens, "else this wrapper would prove nothing"
    assert decoder_layers(wrapped) == list(model.layers)


def test_one_embedding_for_each_codebook_is_no_text_decoder():
    depth = Decoder()
    depth.embed_tokens = nn.ModuleList([nn.Embedding(5, 4)])
    text = Decoder(3)
    assert decoder_layers(nn.ModuleList([depth, text])) == list(text.layers)


def test_an_unknown_model_is_told_which_modules_were_seen():
    with pytest.raises(CaptureError, match=r"found none.* Pass layers= .* those seen: 'tower.layers' \(7 x Linear\)"):
        decoder_layers(nn.ModuleDict({"tower": Tower(7)}))
    with pytest.raises(CaptureError, match=r"inside the Linear .* those seen: none"):
        decoder_layers(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ("model.layers", "layers='model.layers' to name a ModuleList of the Decoder, got no module of that name"),
        ("embed_tokens", "got a Embedding"),
        ([], "at least one submodule of the Decoder; got 0"),
        ([nn.Linear(4, 4)], r"got 1, of which those at \[0\] are not inside it"),
    ],
)
def test_layers_that_are_none_of_the_model(layers, match):
    with pytest.raises(CaptureError, match=match) as caught:
        decoder_layers(Decoder(), layers=layers)
    assert "'layers' (2 x Linear)" in str(caught.value)


def test_a_layer_that_is_listed_twice():
    model = Decoder()
    model.layers[1] = model.layers[0]
    with pytest.raises(CaptureError, match="distinct layers; got 2 of which 1 differ"):
        decoder_layers(model)
