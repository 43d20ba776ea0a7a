"""What single families need beside a record."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.utils import import_utils

from tars_rewards.capture import capture_hidden_states
from tars_rewards.errors import MissingDependencyError, UnsupportedConfigError
from tars_rewards.speech.model import SpeechModel


def clip(samples):
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


@torch.no_grad()
def last_logits(speech, prompt):
    return speech.model(**speech.batch([prompt], padding="right")).logits[0, -1]


@pytest.mark.parametrize("samples", [480_000, 480_001, 480_300, 480_700])
def test_flamingos_take_clips_that_just_fill_a_window(loaded, samples):
    for name in ("audioflamingo3", "musicflamingo"):
        speech = loaded(name).speech
        prompt = speech.prompt(question=None, media=clip(samples), instruction="Go.")
        assert torch.isfinite(last_logits(speech, prompt)).all()


@pytest.mark.parametrize("name", ["voxtral", "audioflamingo3", "granite_speech", "phi4_multimodal"])
def test_long_clips_are_heard_to_the_end(loaded, name):
    speech, long = loaded(name).speech, clip(16_000 * 40)
    other_end = long.copy()
    other_end[-16_000 * 8 :] *= 3
    heard = [speech.prompt(question=None, media=each, instruction="Go.") for each in (long, other_end)]
    assert (
        last_logits(speech, heard[0]) - last_logits(speech, heard[1])
    ).abs().max() > 1e-5  # unheard, it would be nothing


def test_gemma_3n_is_captured_where_attention_works(loaded):
    speech = loaded("gemma3n").speech
    batch = speech.batch([speech.prompt(question="Why?", media=None)], padding="right")
    mask = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    with torch.no_grad(), capture_hidden_states(speech.model, mask, layers=speech.layers) as captured:
        output = speech.model(**batch, output_hidden_states=True)
    streams = output.hidden_states[1:]
    assert streams[0].shape[0] == speech.model.config.text_config.altup_num_inputs
    expected = torch.stack([layer[0, 0].mean(dim=0) for layer in streams])
    torch.testing.assert_close(captured.pooled[0], expected)
    assert captured.final_norm == "before"


def test_a_short_row_is_scored_the_same_beside_a_long_one(loaded, tmp_path):
    directory = shutil.copytree(loaded("phi4_multimodal").directory, tmp_path / "phi")
    config = json.loads((directory / "config.json").read_text())
    config["rope_parameters"]["original_max_position_embeddings"] = config["original_max_position_embeddings"] = 60
    (directory / "config.json").write_text(json.dumps(config))
    speech = SpeechModel.load(directory, device="cpu")
    prompts = [speech.prompt(question=text, media=None) for text in ("Why?", "Why? " * 40)]
    assert len(prompts[0].token_ids) < 60 < len(prompts[1].token_ids)
    for padding in ("left", "right"):
        with torch.no_grad():
            batch = speech.batch(prompts, padding=padding)
            together = speech.model(**batch).logits
        for row, prompt in enumerate(prompts):
            own = together[row][batch["attention_mask"][row].bool()][-1]
            torch.testing.assert_close(own, last_logits(speech, prompt), rtol=0, atol=1e-5)


def test_models_may_be_loaded_more_than_once(loaded):
    directory = loaded("gemma3n").directory
    one, other = (SpeechModel.load(directory, device="cpu") for _ in range(2))
    assert len(one.layers) == len(other.layers) == 4
    assert not {id(layer) for layer in one.layers} & {id(layer) for layer in other.layers}


def test_voxtrals_clips_pass_through_a_file_unchanged(loaded):
    speech = loaded("voxtral").speech
    loud = clip(8000) * 30  # beyond what 16-bit samples hold
    extracted = speech.processor.feature_extractor(loud, sampling_rate=16000, return_tensors="pt")["input_features"]
    heard = speech.prompt(question=None, media=loud)
    torch.testing.assert_close(heard.features["input_features"], extracted, rtol=0, atol=1e-5)


def test_a_package_that_a_processor_needs_is_named(loaded, monkeypatch):
    directory = loaded("granite_speech").directory
    _, message = import_utils.BACKENDS_MAPPING["torchaudio"]
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "torchaudio", (lambda: False, message))
    with pytest.raises(MissingDependencyError, match=r"processor of Granite Speech needs .* requires the torchaudio"):
        SpeechModel.load(directory, device="cpu")


def test_a_package_that_a_model_needs_is_named(loaded, monkeypatch):
    directory = loaded("gemma3n").directory
    from transformers.models.timm_wrapper import TimmWrapperModel

    monkeypatch.setattr(sys.modules["transformers"], "TimmWrapperModel", TimmWrapperModel)  # where AutoModel looks
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "timm", (lambda: False, "{0} requires the timm library"))
    with pytest.raises(MissingDependencyError, match=r"model of Gemma 3n needs .* timm"):
        SpeechModel.load(directory, device="cpu")


def test_a_model_that_transformers_lacks_is_named_before_its_processor_fails(loaded):
    known = loaded("audioflamingo3")
    newer = replace(known.speech.family, model_class="AudioFlamingo9", load_processor=lambda path: {}["newer"])
    with pytest.raises(UnsupportedConfigError, match="needs a transformers that has AudioFlamingo9"):
        SpeechModel.load(known.directory, device="cpu", family=newer)
