"""What verl and vLLM get of a clip: dataset, chat handling, agent loop, vLLM server."""

import asyncio
import types

import datasets
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.utils import hf_processor, hf_tokenizer

from tars_rewards.errors import AdapterError, UnsupportedConfigError
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO, find_trainable, trainable_of
from tars_rewards.speech.waveform import load_waveform
from tars_rewards_verl.audio.dataset import SpeechDataset

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}
BOTH = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def processors(tiny):
    return {name: hf_processor(str(tiny / name)) for name in FAMILIES}


# ---- families


def test_families_are_found_by_checkpoint_and_by_part():
    assert find_trainable("qwen2_5_omni") is find_trainable("qwen2_5_omni_thinker") is QWEN2_5_OMNI
    assert find_trainable("qwen2") is None
    assert find_trainable(None) is None
    with pytest.raises(UnsupportedConfigError, match=r"model_type qwen2\).*Qwen2-Audio \(model_type qwen2_audio\)"):
        trainable_of("qwen2")


# ---- dataset


def dataset(tiny, name, table, tmp_path):
    file = tmp_path / "data.parquet"
    table.to_parquet(file)
    processor = hf_processor(str(tiny / name))
    config = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(tmp_path / "cache")})
    return SpeechDataset(str(file), hf_tokenizer(str(tiny / name)), config, processor)


def rows(audios):
    content = "<audio>" * len(audios) + "2"
    return datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": content}], "audios": audios}])


def heard(data):
    config = OmegaConf.create({})
    return asyncio.run(data.process_multi_modal_info(data[0]["raw_prompt"], image_patch_size=14, config=config))


def test_paths_and_bytes_reach_the_agent_loop_as_samples(tiny, clips, tmp_path):
    expected = load_waveform(clips[1])
    forms = (
        [str(clips[1])],
        [{"bytes": clips[1].read_bytes(), "path": None}],
        [{"array": expected.tolist(), "sampling_rate": 16000}],
    )
    for number, audios in enumerate(forms):
        (tmp_path / str(number)).mkdir()
        images, videos, found = heard(dataset(tiny, "qwen2_audio", rows(audios), tmp_path / str(number)))
        assert images is None
        assert videos is None
        np.testing.assert_array_equal(found[0], expected)


def test_audio_columns_of_hugging_face_datasets_need_no_decoder_of_theirs(tiny, clips, tmp_path):
    table = rows([str(clips[0])]).cast_column("audios", datasets.List(datasets.Audio(sampling_rate=16000)))
    data = dataset(tiny, "qwen2_5_omni", table, tmp_path)
    _, _, found = heard(data)
    np.testing.assert_array_equal(found[0], load_waveform(clips[0]))


def test_written_rows_are_as_in_verls_dataset(tiny, tmp_path):
    assert heard(dataset(tiny, "qwen2_audio", rows([]), tmp_path)) == (None, None, None)


def test_audio_for_a_model_that_cannot_hear_names_those_that_can(tiny, clips, tmp_path):
    data = dataset(tiny, "text", rows([str(clips[0])]), tmp_path)
    with pytest.raises(UnsupportedConfigError, match=r"the data has audio, but the model.*Qwen2\.5-Omni"):
        data[0]


def test_an_unreadable_clip_is_named(tiny, tmp_path):
    data = dataset(tiny, "qwen2_audio", rows([str(tmp_path / "gone.wav")]), tmp_path)
    with pytest.raises(AdapterError, match=r"gone\.wav cannot be read"):
        heard(data)


# ---- chat handling and agent loop


@BOTH
def test_prompts_are_built_with_the_clip_expanded_as_by_the_stock_processor(processors, clips, name):
    from transformers import Qwen2AudioProcessor
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    processor = processors[name]
    builder = create_continuous_token_builder(
        processor.tokenizer, hf_model_type=FAMILIES[name].model_type, processor=processor
    )
    assert type(builder).__name__ == "QwenVLContinuousTokenBuilder"
    messages = [{"role": "user", "content": [{"type": "audio", "audio": "x"}, {"type": "text", "text": "Say 2"}]}]
    found = builder.build_initial_tokens(messages, audios=[load_waveform(clips[0])])
    # Half a second: 50 frames, halved twice. Counted by hand, and by the stock class where it needs no torchvision.
    assert found.count(processor.placeholder_id()) == 12
    if name == "qwen2_audio":
        stock = Qwen2AudioProcessor(processor.feature_extractor, processor.tokenizer)
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert found == stock(text=[text], audio=[load_waveform(clips[0])], sampling_rate=16000)["input_ids"][0]
    assert builder.build_initial_tokens([{"role": "user", "content": "Say 2"}]).count(processor.placeholder_id()) == 0


def agent_loop_worker(processor):
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    worker = AgentLoopWorker.__new__(AgentLoopWorker)
    worker.processor, worker.tokenizer, worker.mm_processor_kwargs = processor, processor.tokenizer, {}
    return worker


@BOTH
def test_features_of_a_completed_sequence_come_from_the_clip(processors, clips, name):
    processor = processors[name]
    worker = agent_loop_worker(processor)
    waveform = load_waveform(clips[0])
    output = types.SimpleNamespace(multi_modal_data={"audios": [waveform]}, mm_processor_kwargs=None)
    # Whatever was sampled, even the placeholder's name spelt out.
    sampled = processor.tokenizer("<|AUDIO|> <|AUDIO|> done", return_tensors="pt")["input_ids"]
    features = worker._compute_multi_modal_inputs(output, sampled)
    assert features.keys() == {"input_features", "feature_attention_mask"}
    assert torch.equal(features["input_features"], processor.features([waveform])["input_features"])
    written = types.SimpleNamespace(multi_modal_data={}, mm_processor_kwargs=None)
    assert worker._compute_multi_modal_inputs(written, sampled) == {}


def test_positions_have_an_axis_more_where_the_model_takes_three(processors):
    ids, mask = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long)
    for name, shape in (("qwen2_audio", (1, 4)), ("qwen2_5_omni", (1, 4, 4))):
        positions = agent_loop_worker(processors[name])._compute_position_ids(ids, mask, {})
        assert tuple(positions.shape) == shape
        assert (positions == torch.arange(4)).all()


# ---- vLLM server


def sent(monkeypatch, processor, prompt_ids, **media):
    """Arguments that reach the stock ``generate``."""
    from tars_rewards_verl.audio.rollout import _send_audio

    calls = []

    class Stock:
        async def generate(
            self,
            prompt_ids,
            sampling_params,
            request_id,
            image_data=None,
            video_data=None,
            audio_data=None,
            mm_processor_kwargs=None,
            priority=0,
            kv_transfer_params=None,
        ):
            calls.append((prompt_ids, audio_data, mm_processor_kwargs))

    def banned(processor):
        return [99]

    module = types.ModuleType("server")
    module.vLLMHttpServer, module.get_vision_placeholder_token_ids = Stock, banned
    module.normalize_token_ids = list
    _send_audio(module)
    server = Stock()
    server.model_config = types.SimpleNamespace(processor=processor)
    asyncio.run(server.generate(prompt_ids, {}, "r", **media))
    return calls[0], module.get_vision_placeholder_token_ids(processor)


@BOTH
def test_vllm_gets_one_placeholder_per_clip_and_no_sampling_rate(monkeypatch, processors, name):
    processor = processors[name]
    placeholder = processor.placeholder_id()
    prompt = [300, *[placeholder] * 12, 301]
    clip = np.zeros(8000, np.float32)
    (ids, audio, kwargs), banned = sent(
        monkeypatch, processor, prompt, audio_data=[clip], mm_processor_kwargs={"sampling_rate": 16000, "kept": 1}
    )
    assert ids == [300, placeholder, 301]
    assert audio[0] is clip
    assert kwargs == {"kept": 1}
    assert placeholder in banned


def test_other_models_requests_pass_untouched(monkeypatch):
    kwargs = {"sampling_rate": 16000}
    for processor in (None, object()):
        found, banned = sent(monkeypatch, processor, [1, 1, 1], audio_data=["clip"], mm_processor_kwargs=kwargs)
        assert found == ([1, 1, 1], ["clip"], kwargs)
        assert banned == [99]


@BOTH
def test_clips_that_merged_stop_the_request(monkeypatch, processors, name):
    placeholder = processors[name].placeholder_id()
    with pytest.raises(AdapterError, match="2 clips but 1 runs"):
        sent(monkeypatch, processors[name], [1, placeholder, placeholder], audio_data=["a", "b"])
