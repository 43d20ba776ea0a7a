"""Processors of the speech model families, against the stock Hugging Face processors and models."""

import pickle

import numpy as np
import pytest
import torch
from verl.utils import hf_processor
from verl.utils.tokenizer import build_multimodal_processor_inputs

from tars_rewards.errors import AdapterError, UnsupportedConfigError
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
BOTH = pytest.mark.parametrize("name", FAMILIES)
AUDIO = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
PROMPT = [{"role": "user", "content": [{"type": "audio", "audio": "x"}, {"type": "text", "text": "2"}]}]


@pytest.fixture(scope="module")
def processors(tiny):
    return {name: hf_processor(str(tiny / name), trust_remote_code=False) for name in FAMILIES}


def prompt_of(processor, clips):
    text = processor.apply_chat_template(PROMPT * len(clips), tokenize=False, add_generation_prompt=True)
    return build_multimodal_processor_inputs(processor, text=[text], audio=clips)


@BOTH
def test_verl_finds_the_processor_and_text_models_keep_having_none(processors, tiny, name):
    processor = processors[name]
    assert type(processor).__name__ == FAMILIES[name].processor_class
    assert processor.speech_family is FAMILIES[name]
    assert processor.config.model_type == FAMILIES[name].model_type
    assert hf_processor(str(tiny / "text")) is None


@BOTH
def test_features_alone_are_those_of_the_whole_processor(processors, clips, name):
    processor = processors[name]
    chosen = [str(clips[0]), str(clips[1])]
    whole = prompt_of(processor, chosen)
    alone = processor.features(chosen)
    frames = alone["input_features"].shape[-1]
    assert torch.equal(alone["input_features"], whole["input_features"][..., :frames])
    assert torch.equal(alone["feature_attention_mask"], whole["feature_attention_mask"][:, :frames])
    # Nothing but padding was cut off.
    assert whole["feature_attention_mask"][:, frames:].sum() == 0
    assert frames == (3000 if name == "qwen2_audio" else 50)


@BOTH
def test_features_of_a_clip_do_not_depend_on_its_neighbours(processors, clips, name):
    processor = processors[name]
    long = np.tile(np.sin(np.arange(16000, dtype=np.float32)), 3)
    alone = processor.features([clips[0]])
    mixed = processor.features([clips[0], long])
    frames = int(alone["feature_attention_mask"].sum())
    assert int(mixed["feature_attention_mask"][0].sum()) == frames
    torch.testing.assert_close(
        mixed["input_features"][0, :, :frames], alone["input_features"][0, :, :frames], rtol=0, atol=1e-6
    )


@BOTH
def test_collapse_undoes_the_expansion(processors, clips, name):
    processor = processors[name]
    for chosen in ([clips[0]], [clips[0], clips[1]]):
        text = processor.apply_chat_template(PROMPT * len(chosen), tokenize=False, add_generation_prompt=True)
        expanded = prompt_of(processor, chosen)["input_ids"][0].tolist()
        single = processor.tokenizer(text)["input_ids"]
        assert expanded.count(processor.placeholder_id()) > 5 * len(chosen)
        assert processor.collapse(expanded, len(chosen)) == single
        assert processor.collapse(single, len(chosen)) == single


@BOTH
def test_clips_that_would_merge_are_refused(processors, name):
    processor = processors[name]
    placeholder = processor.placeholder_id()
    for prompt, clips in (([1, *[placeholder] * 20, 2], 2), ([1, placeholder, 2], 0), ([1, 2], 1)):
        with pytest.raises(AdapterError, match=f"a prompt has {clips} clips but . runs of the placeholder"):
            processor.collapse(prompt, clips)


def test_tokens_that_are_never_sampled(processors):
    for name, tokens in (
        ("qwen2_audio", AUDIO),
        (
            "qwen2_5_omni",
            [*AUDIO, "<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>"],
        ),
    ):
        processor = processors[name]
        assert processor.never_sampled() == sorted(processor.tokenizer.convert_tokens_to_ids(tokens))
        assert processor.tokenizer.eos_token_id not in processor.never_sampled()


@BOTH
def test_clips_out_of_the_encoders_range_are_refused(processors, name):
    processor = processors[name]
    for seconds, message in ((31, r"31\.0 s is longer than the 30 s"), (0.02, "320 samples.*too short")):
        clip = np.ones(int(16000 * seconds), np.float32)
        with pytest.raises(AdapterError, match=message):
            processor.features([clip])
        with pytest.raises(AdapterError, match=message):
            prompt_of(processor, [clip])


@BOTH
def test_shortest_accepted_clip_leaves_a_feature_vector(processors, name):
    processor = processors[name]
    ids = prompt_of(processor, [np.ones(480, np.float32)])["input_ids"][0]
    assert (ids == processor.placeholder_id()).sum() == 1


@BOTH
def test_images_are_refused(processors, name):
    with pytest.raises(UnsupportedConfigError, match="audio and text only"):
        processors[name](text=["x"], images=[object()])


@BOTH
def test_pickled_and_saved_processors_load(processors, clips, tmp_path, name):
    processor = processors[name]
    copy = pickle.loads(pickle.dumps(processor))
    assert copy.speech_family is FAMILIES[name]
    processor.save_pretrained(tmp_path)
    saved = type(processor).from_pretrained(tmp_path)
    for other in (copy, saved):
        assert torch.equal(
            other.features([clips[0]])["input_features"], processor.features([clips[0]])["input_features"]
        )
        assert other.apply_chat_template(PROMPT, tokenize=False) == processor.apply_chat_template(
            PROMPT, tokenize=False
        )


def test_another_sampling_rate_is_refused(tiny, tmp_path):
    import json
    import shutil

    shutil.copytree(tiny / "qwen2_5_omni", tmp_path / "model")
    file = tmp_path / "model" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sampling_rate": 8000}))
    with pytest.raises(UnsupportedConfigError, match="takes 8000 Hz, expected 16000"):
        hf_processor(str(tmp_path / "model"))


def test_positions_of_a_padded_batch(processors):
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    positions, delta = processors["qwen2_5_omni"].get_rope_index(torch.zeros_like(mask), mask)
    assert delta is None
    assert positions.shape == (3, 2, 5)
    assert positions[0].tolist() == positions[1].tolist() == positions[2].tolist()
    assert positions[0, 0, 2:].tolist() == positions[0, 1, :3].tolist() == [0, 1, 2]
