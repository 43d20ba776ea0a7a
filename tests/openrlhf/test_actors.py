"""What the Ray actors do beside a forward: what is frozen, what is forgotten after a push, features of a micro-batch."""

import asyncio

import pytest
import torch

from tars_rewards.speech.families import QWEN2_5_OMNI, QWEN2_AUDIO
from tars_rewards_openrlhf import cpu

cpu.install()
import openrlhf.models.actor as stock_models  # noqa: E402

from tars_rewards_openrlhf.engine import RolloutActor  # noqa: E402
from tars_rewards_openrlhf.policy import FrozenSpeechActor, SpeechActor, merge_features  # noqa: E402

FAMILIES = {"qwen2_audio": QWEN2_AUDIO, "qwen2_5_omni": QWEN2_5_OMNI}


class LLM:
    """Stands for vLLM's engine: remembers what it was asked."""

    def __init__(self):
        self.calls = []

    async def collective_rpc(self, method, args=()):
        self.calls.append(method)

    async def reset_encoder_cache(self):
        self.calls.append("reset_encoder_cache")


def test_what_old_weights_encoded_is_forgotten_after_the_last_weight_of_a_push():
    actor = RolloutActor.__new__(RolloutActor)
    actor.llm = LLM()
    for last in (False, True):
        asyncio.run(actor.update_weight("a", torch.float32, (1,), last))
        asyncio.run(actor.update_weight_cuda_ipc("a", torch.float32, (1,), {}, last))
    first, last = actor.llm.calls[:2], actor.llm.calls[2:]
    assert first == ["update_weight", "update_weight_cuda_ipc"]
    assert last == ["update_weight", "reset_encoder_cache", "update_weight_cuda_ipc", "reset_encoder_cache"]


@pytest.fixture
def stock_loaders(monkeypatch):
    for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText"):
        monkeypatch.setattr(stock_models, name, getattr(stock_models, name))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("cls", "flag", "frozen"),
    [(SpeechActor, {}, False), (SpeechActor, {"freeze_visual_encoder": True}, True), (FrozenSpeechActor, {}, True)],
)
def test_the_flag_freezes_all_that_audio_passes_through_and_the_reference_is_always_frozen(
    stock_loaders, tiny, name, cls, flag, frozen
):
    model = cls(str(tiny / name), attn_implementation="sdpa", **flag).model
    for path in FAMILIES[name].audio_path:
        assert {each.requires_grad for each in model.get_submodule(path).parameters()} == {not frozen}
    assert all(each.requires_grad for each in model.get_submodule(FAMILIES[name].decoder).layers.parameters())


def test_features_of_a_micro_batch_are_joined_and_rows_without_audio_have_none():
    def spoken(frames):
        return {"input_features": torch.ones(1, 2, frames), "feature_attention_mask": torch.ones(1, frames)}

    merged = merge_features([[spoken(3), None], spoken(5)], "cpu")
    assert merged["input_features"].shape == (2, 2, 5)
    assert merged["feature_attention_mask"].sum(dim=1).tolist() == [3, 5]
    assert merge_features([None, [None]], "cpu") == {}
