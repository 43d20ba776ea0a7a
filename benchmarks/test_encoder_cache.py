"""What encoding a clip once per step saves: a log-prob forward and an update, with and without the cache, in turns.

Sizes of the demo: a Whisper tiny encoder (4 x 384), a decoder of 4 x 128, 4 spoken and 4 written completions each of 4
questions. Qwen2-Audio encodes windows of 30 s whatever the clip; Qwen2.5-Omni encodes the clip's own 6 s.
"""

import statistics
import time

import pytest
import torch
from results import load, record

from tars_rewards.speech.encoder_cache import EncoderCache
from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO

QUESTIONS, SAMPLES, SECONDS, COMPLETION, VOCABULARY, PLACEHOLDER = 4, 4, 6, 48, 512, 5
FRAMES = 100 * SECONDS
ROUNDS = 5
SIZES = {"encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "d_model": 384, "num_mel_bins": 80}
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def qwen2_audio():
    from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration, Qwen2Config

    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(**SIZES), text_config=Qwen2Config(**DECODER), audio_token_index=PLACEHOLDER
    )
    return Qwen2AudioForConditionalGeneration(config), QWEN2_AUDIO, 3000


def qwen2_5_omni():
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    config = Qwen2_5OmniThinkerConfig(
        audio_config={**SIZES, "output_dim": 128},
        vision_config={"depth": 1, "hidden_size": 64, "num_heads": 2, "out_hidden_size": 128, "intermediate_size": 64},
        text_config={
            **DECODER,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e4},
        },
        audio_token_index=PLACEHOLDER,
    )
    return Qwen2_5OmniThinkerForConditionalGeneration(config), QWEN2_5_OMNI, FRAMES


def rows(frames):
    """Inputs of all completions of a step: spoken questions, then written ones."""
    clips = torch.randn(QUESTIONS, 80, frames, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(QUESTIONS, frames, dtype=torch.long)
    mask[:, :FRAMES] = 1
    tokens = (FRAMES // 2 - 2) // 2 + 1
    ids = torch.full((2 * QUESTIONS * SAMPLES, 20 + tokens + COMPLETION), 7)
    ids[: QUESTIONS * SAMPLES, 10 : 10 + tokens] = PLACEHOLDER
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids),
        "input_features": clips.repeat_interleave(SAMPLES, 0),
        "feature_attention_mask": mask.repeat_interleave(SAMPLES, 0),
        "use_cache": False,
    }


def step(model, batch):
    with torch.no_grad():
        model(**batch)
    model(**batch).logits.log_softmax(-1)[..., 8].sum().backward()
    model.zero_grad()


class Encodes:
    """Clips that went through the encoder's first layer, whatever stands in front of the encoder."""

    def __init__(self, tower, frames) -> None:
        self.clips = 0.0
        self._frames = frames
        tower.conv1.register_forward_pre_hook(self._count)

    def _count(self, module, inputs):
        features = inputs[0]
        self.clips += features.shape[0] * features.shape[-1] / self._frames


@pytest.mark.benchmark(timer=time.process_time, disable_gc=True)
@pytest.mark.parametrize("make", [qwen2_audio, qwen2_5_omni])
def test_step(benchmark, make):
    torch.manual_seed(0)
    model, family, frames = make()
    tower = model.get_submodule(family.audio_tower).requires_grad_(False)
    counted = Encodes(tower, frames)
    batch = rows(frames)
    plain = tower.forward
    cache = EncoderCache(tower, family).install()
    cached = tower.forward
    seconds, encodes = {"before": [], "after": []}, {}

    def timed_step(which, forward):
        tower.forward = forward
        counted.clips = 0
        cache.clear()  # a new step has new questions
        start = time.process_time()
        step(model, batch)
        seconds[which].append(time.process_time() - start)
        encodes[which] = counted.clips / QUESTIONS

    for forward in (plain, cached):
        timed_step("before", forward)  # not counted: first runs
    for times in seconds.values():
        times.clear()
    benchmark.pedantic(timed_step, args=("after", cached), setup=lambda: timed_step("before", plain), rounds=ROUNDS)

    assert encodes["before"] == 2 * SAMPLES, "a completion each in the forward and in the update, without the cache"
    details = load().get("rows", {}).get("encoder/encodes", {}).get("details", {})
    details[make.__name__] = {
        "encodes": encodes["after"],
        "encodes_before": encodes["before"],
        "step_seconds_before": round(statistics.median(seconds["before"]), 3),
        "step_seconds_after": round(statistics.median(seconds["after"]), 3),
        "times_faster": round(
            statistics.median(b / a for b, a in zip(seconds["before"], seconds["after"], strict=True)), 2
        ),
    }
    print(f"\n{make.__name__}: {details[make.__name__]}")
    worst = max(each["encodes"] for each in details.values())
    assert record("encoder/encodes", worst, rounds=ROUNDS, details=details)
    assert encodes["after"] == 1
