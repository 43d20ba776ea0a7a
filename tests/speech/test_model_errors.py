"""What SpeechModel refuses, and in which words: each names what was expected, what came and what to do."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_registry import media

from tars_rewards.errors import AdapterError, ConfigError, UnsupportedConfigError
from tars_rewards.speech import loading
from tars_rewards.speech.families import LLAVA, QWEN2_AUDIO, family_of, find_family, known_families, register_family
from tars_rewards.speech.model import SpeechModel


@pytest.fixture
def audio(loaded):
    return loaded("qwen2_audio")


@pytest.fixture
def copied(audio, tmp_path):
    """A checkpoint of its own for a test, to be damaged."""
    return shutil.copytree(audio.directory, tmp_path / "copied")


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# ---- where and as what to load


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "tpu0"])
def test_an_unknown_device_is_refused(audio, device):
    with pytest.raises(ConfigError, match=rf"expected device to be 'auto' or a device .*'cpu', 'cuda'.*got '{device}'"):
        SpeechModel.load(audio.directory, device=device)


@pytest.mark.parametrize("dtype", ["float", "int8", "fp16", torch.int64])
def test_an_unknown_dtype_is_refused(audio, dtype):
    with pytest.raises(ConfigError, match="expected dtype to be 'auto' or one of float32, bfloat16, float16, got"):
        SpeechModel.load(audio.directory, device="cpu", dtype=dtype)


def test_auto_is_the_best_device_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert loading.choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert loading.choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loading.choose_device("auto") == torch.device("cuda")


def test_auto_is_the_checkpoints_dtype_but_float32_on_the_cpu():
    assert loading.choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert loading.choose_dtype("auto", torch.device("cuda")) == "auto"
    assert loading.choose_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert loading.choose_dtype(torch.float16, torch.device("cuda")) is torch.float16


def test_a_model_in_bfloat16_runs_and_hears(audio):
    speech = SpeechModel.load(str(audio.directory), device="cpu", dtype="bfloat16")
    assert speech.dtype is torch.bfloat16
    prompts = [speech.prompt(question=None, media=media(audio.module, seed)) for seed in (0, 1)]
    with torch.no_grad():
        first, second = (speech.model(**speech.batch([each], padding="right")).logits[0, -1] for each in prompts)
    assert first.dtype is torch.bfloat16
    assert not torch.equal(first, second)


# ---- what is no checkpoint


def test_a_missing_directory_and_a_hub_out_of_reach_are_told_apart_from_a_broken_one(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path / "nowhere"), "nobody/no-such-model"):
        with pytest.raises(ConfigError, match=rf"got '{name}': there is no such directory, and from the hub .*network"):
            SpeechModel.load(name, device="cpu")
    with pytest.raises(
        ConfigError, match=r"the directory .* is not a checkpoint that can be loaded: it has no config\.json"
    ):
        SpeechModel.load(tmp_path, device="cpu")


def test_an_unknown_model_type_lists_the_known_ones_and_says_how_to_add_one(copied):
    edit(copied / "config.json", model_type="mystery")
    with pytest.raises(UnsupportedConfigError) as refusal:
        SpeechModel.load(copied, device="cpu")
    message = str(refusal.value)
    assert all(f"{each.name} (model_type {each.checkpoint_type})" in message for each in known_families())
    assert "model_type 'mystery'" in message
    assert "register_family" in message


def test_a_family_that_the_installed_transformers_lacks_is_refused(audio):
    with pytest.raises(UnsupportedConfigError, match=r"Qwen2-Audio needs a transformers that has FutureModel; 5\."):
        SpeechModel.load(audio.directory, device="cpu", family=replace(QWEN2_AUDIO, model_class="FutureModel"))


def test_weights_that_are_missing_are_not_made_up(copied):
    weights = load_file(copied / "model.safetensors")
    weights.pop(next(name for name in weights if "conv1.weight" in name))
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedConfigError, match=r"lacks 1 weights .*audio_tower\.conv1\.weight.*Is it complete"):
        SpeechModel.load(copied, device="cpu")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"is not a checkpoint that can be loaded: .*model\.safetensors"):
        SpeechModel.load(copied, device="cpu")


def test_a_checkpoint_without_its_processor_is_refused(copied):
    for file in copied.glob("*processor*"):
        file.unlink()
    with pytest.raises(ConfigError, match=r"the processor of Qwen2-Audio cannot be loaded from .*beside the weights"):
        SpeechModel.load(copied, device="cpu")


def test_a_checkpoint_without_an_end_is_refused(audio):
    speech = SpeechModel.load(audio.directory, device="cpu")
    speech.processor.tokenizer.eos_token = None
    speech.model.generation_config.eos_token_id = None
    with pytest.raises(UnsupportedConfigError, match="no completion could end; set eos_token_id in generation_config"):
        SpeechModel(speech.model, speech.processor, speech.family)


def test_all_ends_of_the_generation_config_count(copied):
    edit(copied / "generation_config.json", eos_token_id=[0, 2])
    speech = SpeechModel.load(copied, device="cpu")
    assert speech.stop_ids == {0, 2}
    assert speech.end_of_turn == 2


# ---- records


def test_a_record_whose_encoder_is_not_what_the_forward_calls_is_refused(audio):
    wrong = replace(QWEN2_AUDIO, encoder="model.get_input_embeddings")
    speech = SpeechModel.load(audio.directory, device="cpu", family=wrong)
    prompt = speech.prompt(question=None, media=media(audio.module, 0))
    with pytest.raises(AttributeError, match="last_hidden_state"):  # reached, but by something else
        speech.batch([prompt], padding="right")
    never = replace(QWEN2_AUDIO, encoder="get_output_embeddings")
    speech = SpeechModel.load(audio.directory, device="cpu", family=never)
    with pytest.raises(UnsupportedConfigError, match="to call 'get_output_embeddings' with a prompt's features"):
        speech.batch([prompt], padding="right")


def test_a_record_whose_placeholder_the_vocabulary_lacks_is_refused(audio):
    with pytest.raises(UnsupportedConfigError, match="have Qwen2-Audio's placeholder '<speech>'"):
        SpeechModel.load(audio.directory, device="cpu", family=replace(QWEN2_AUDIO, placeholder="<speech>"))


def test_a_registered_family_is_loaded_by_its_model_type(loaded, monkeypatch):
    seen = loaded("vision")
    others = {each.checkpoint_type: each for each in known_families() if each is not LLAVA}
    monkeypatch.setattr("tars_rewards.speech.families._REGISTERED", others)
    with pytest.raises(UnsupportedConfigError, match="model_type 'llava' is none of"):
        SpeechModel.load(seen.directory, device="cpu")
    ours = replace(LLAVA, name="Ours")
    register_family(ours)
    assert family_of("llava") is find_family("llava") is ours
    speech = SpeechModel.load(seen.directory, device="cpu")
    assert speech.family is ours
    image = media(seen.module, 1)
    first, second = (
        each.batch([each.prompt(question=None, media=image)], padding="right") for each in (speech, seen.speech)
    )
    with torch.no_grad():
        torch.testing.assert_close(speech.model(**first).logits, seen.speech.model(**second).logits)


# ---- prompts and batches


def test_a_prompt_is_either_heard_or_read(audio):
    for kwargs in ({"question": None, "media": None}, {"question": "2", "media": media(audio.module, 0)}):
        with pytest.raises(AdapterError, match="either written or heard: give exactly one of question= and media="):
            audio.speech.prompt(**kwargs)


@pytest.mark.parametrize("field", ["question", "system", "instruction"])
def test_text_that_reads_like_a_clip_is_refused(tiny_family, field):
    speech = tiny_family.speech
    token = speech.processor.tokenizer.decode([speech.family.placeholder_id(speech.processor)])
    kwargs = {"question": "What?", "media": None, field: f"Listen: {token}"}
    with pytest.raises(AdapterError, match=f"the {field} has the text .*take it out"):
        speech.prompt(**kwargs)


def test_a_clip_that_would_be_cut_and_one_too_short_are_refused(loaded):
    for name in ("qwen2_audio", "qwen2_5_omni"):
        speech = loaded(name).speech
        with pytest.raises(AdapterError, match=r"clip given as samples of 30\.5 s is longer than the 30 s .*split it"):
            speech.prompt(question=None, media=np.zeros(488_000, dtype=np.float32))
        whole = speech.prompt(question=None, media=np.zeros(480_000, dtype=np.float32))
        assert whole.token_ids.count(speech.family.placeholder_id(speech.processor)) == 750
        with pytest.raises(AdapterError, match=r"of 100 samples \(0\.006 s\) is too short to be encoded"):
            speech.prompt(question=None, media=np.zeros(100, dtype=np.float32))


def test_a_clip_of_any_length_goes_where_nothing_is_cut(loaded):
    speech = loaded("qwen3_omni_moe").speech
    prompt = speech.prompt(question=None, media=np.zeros(640_000, dtype=np.float32))
    assert prompt.token_ids.count(speech.family.placeholder_id(speech.processor)) == 40 * 13


def test_a_file_that_is_none_is_named(audio, tmp_path):
    (tmp_path / "noise.wav").write_text("no audio")
    with pytest.raises(AdapterError, match=r"noise\.wav cannot be read"):
        audio.speech.prompt(question=None, media=tmp_path / "noise.wav")


def test_a_template_that_leaves_the_clip_out_is_refused(copied, audio):
    for file in copied.glob("chat_template*"):
        file.write_text(file.read_text().replace("<|AUDIO|>", ""))
    speech = SpeechModel.load(copied, device="cpu")
    with pytest.raises(AdapterError, match=r"processor refuses the prompt .*audio: yes\): Found 0 <\|AUDIO\|> token"):
        speech.prompt(question=None, media=media(audio.module, 0))
    lenient = replace(
        QWEN2_AUDIO, inputs=lambda family, processor, messages, given: processor(text=["hm"], return_tensors="pt")
    )
    speech = SpeechModel.load(copied, device="cpu", family=lenient)
    with pytest.raises(
        AdapterError, match=r"without a single placeholder: the audio is too short .*or the checkpoint's"
    ):
        speech.prompt(question=None, media=media(audio.module, 0))


def test_a_template_that_refuses_a_system_turn_is_quoted(copied):
    for file in copied.glob("chat_template*"):
        no = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}"
        file.write_text(no + file.read_text())
    speech = SpeechModel.load(copied, device="cpu")
    assert speech.prompt(question="2", media=None).token_ids
    with pytest.raises(AdapterError, match=r"refuses the prompt \(system turn: 'Hush\.'.*no system turns here"):
        speech.prompt(question="2", media=None, system="Hush.")


def test_batches_need_a_completion_for_each_prompt(audio):
    prompt = audio.speech.prompt(question="2", media=None)
    with pytest.raises(AdapterError, match="got 1 prompts and 2 completions"):
        audio.speech.batch([prompt], [[1], [2]], padding="right")
    with pytest.raises(AdapterError, match=r"at least one prompt .* got 0 prompts and none completions"):
        audio.speech.batch([], padding="right")
