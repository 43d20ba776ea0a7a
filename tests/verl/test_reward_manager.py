"""One completion in verl's reward loop: base reward, what the trainer needs besides, and where the embedder runs."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from embedding_server import EmbeddingServer, Reply, vector
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.utils import hf_tokenizer

from tars_rewards.errors import EmbedderFailedError, EmbedderFailureWarning
from tars_rewards_verl.reward import TARSReward
from tars_rewards_verl.reward_manager import VALIDATION_COLUMN, TARSRewardManager

RIGHT = "<think>2+2</think><answer>The answer is 4.</answer>"


class CountingReward(TARSReward):
    """Embeds without a model."""

    embedded: list

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedded = []

    def embed(self, completions):
        self.embedded += completions
        return np.ones((len(completions), 3), np.float32)

    def over_window(self, completions):
        return np.array([True] * len(completions))


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return hf_tokenizer(str(tiny / "text"))


@pytest.fixture
def manager(tokenizer, monkeypatch):
    monkeypatch.setattr("tars_rewards_verl.reward_manager.load_reward", lambda spec, kwargs: CountingReward(**kwargs))

    def make(max_model_len=None, max_response_length=64, **kwargs):
        config = {
            "reward": {"custom": "x:Y", "custom_kwargs": kwargs},
            "data": {"max_response_length": max_response_length},
            "actor_rollout_ref": {"rollout": {"max_model_len": max_model_len}},
        }
        return TARSRewardManager(OmegaConf.create(config), tokenizer, None)

    return make


def row(tokens, *, prompt=5, padding=0, **columns):
    """As verl's agent loop sends it: the prompt, then the response, maybe padded on the right."""
    responses = torch.tensor([*tokens, *[0] * padding])
    mask = torch.tensor([1] * (prompt + len(tokens)) + [0] * padding)
    fields = TensorDict({"responses": responses[None], "attention_mask": mask[None]}, batch_size=1)
    columns = {"reward_model": {"ground_truth": "4"}, "modality": "speech", **columns}
    return DataProto(batch=fields, non_tensor_batch={name: np.array([value]) for name, value in columns.items()})


def score(made, *args, **kwargs):
    result = asyncio.run(made.run_single(row(*args, **kwargs)))
    return result["reward_score"], result["reward_extra_info"]


@pytest.fixture(scope="module")
def right(tokenizer):
    return [*tokenizer(RIGHT)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("padding", [0, 7])
def test_base_reward_and_what_the_trainer_needs(manager, right, padding):
    made = manager()
    reward, info = score(made, right, padding=padding)
    assert reward == 1.5
    np.testing.assert_array_equal(info.pop("embedding"), np.ones(3))
    assert info == {"acc": 1.0, "format": 1.0, "truncated": 0.0, "modality": "speech", "over_window": 1.0}
    assert made.reward.embedded == [RIGHT]


def test_what_is_never_compared_is_not_embedded(manager, right):
    made = manager()
    wrong = {"reward_model": {"ground_truth": "5"}}
    _, info = score(made, right, modality="text", **wrong)
    assert (info["acc"], info["embedding"], info["over_window"]) == (0.0, None, None)
    assert not made.reward.embedded
    score(made, right, modality="text")
    score(made, right, modality="speech", **wrong)
    assert made.reward.embedded == [RIGHT] * 2


def test_a_window_that_is_not_told_is_not_called_zero(manager, right, monkeypatch):
    monkeypatch.setattr(CountingReward, "over_window", lambda self, completions: None)
    assert score(manager(), right)[1]["over_window"] is None


@pytest.fixture
def endpoint(tokenizer):
    """A reward manager whose embedder is a server that answers nothing but 401."""

    def make(mode, server):
        kwargs = {"embedder": "m", "embedder_url": server.url, "on_embedder_failure": mode}
        config = {
            "reward": {"custom": "tars_rewards.verl:TARSReward", "custom_kwargs": kwargs},
            "data": {"max_response_length": 64},
            "actor_rollout_ref": {"rollout": {}},
        }
        return TARSRewardManager(OmegaConf.create(config), tokenizer, None)

    return make


def test_an_embedder_that_fails_stops_the_run(endpoint, right):
    with EmbeddingServer(always=Reply(401)) as server, pytest.raises(EmbedderFailedError, match="status 401"):
        score(endpoint("stop", server), right)


def test_or_the_completion_goes_on_and_says_so(endpoint, right, tokenizer):
    with EmbeddingServer(always=Reply(401)) as server:
        made = endpoint("invalid", server)
        with pytest.warns(EmbedderFailureWarning, match="status 401"):
            reward, info = score(made, right)
        again = score(made, [*right[:1], *right])[1]
    assert reward == 1.5
    assert (info["embedding"], info["over_window"], info["embedder_failed"]) == (None, None, 1.0)
    assert again["embedder_failed"] == 1.0
    assert len(server.requests) == 1  # a dead endpoint is not waited for by every completion


def test_an_endpoint_by_the_settings_alone(endpoint, right):
    with EmbeddingServer() as server, pytest.warns(UserWarning, match="does not tell its window"):
        info = score(endpoint("stop", server), right)[1]
    np.testing.assert_array_equal(info["embedding"], vector(RIGHT))
    assert "embedder_failed" not in info


def test_no_embedding_without_the_behavior_term_or_in_validation(manager, right):
    for made, columns in ((manager(beta=0), {}), (manager(), {VALIDATION_COLUMN: True})):
        reward, info = score(made, right, **columns)
        assert reward == 1.5
        assert not {"embedding", "over_window"} & info.keys()
        assert made.reward.embedded == []


def truncated(made, *args, **kwargs):
    return score(made, *args, **kwargs)[1]["truncated"] == 1.0


def test_a_completion_without_room_for_an_end_is_truncated(manager, right, tokenizer):
    cut, size = right[:-1], len(right) - 1
    assert truncated(manager(max_response_length=size), cut)
    assert not truncated(manager(max_response_length=size + 1), right)  # the end took the last place
    assert not truncated(manager(max_response_length=size + 1), cut)
    # No reward for the format of what was cut.
    assert score(manager(max_response_length=size), cut)[0] == 1.0


def test_the_models_length_cuts_too(manager, right):
    """vLLM stops at max_model_len, which a long prompt reaches before the completion reaches its own limit."""
    cut, size = right[:-1], len(right) - 1
    assert truncated(manager(max_model_len=20 + size), cut, prompt=20)
    assert truncated(manager(max_model_len=20 + size), cut, prompt=20, padding=3)
    assert not truncated(manager(max_model_len=20 + size), cut, prompt=19)
    assert not truncated(manager(max_model_len=21 + size), right, prompt=20)


def test_an_empty_completion_is_not_cut(manager):
    for padding in (0, 4):
        reward, info = score(manager(max_response_length=4), [], padding=padding)
        assert (reward, info["acc"], info["truncated"]) == (0, 0, 0)


def test_the_embedder_runs_on_the_cpu_unless_told_otherwise(monkeypatch):
    """Reward workers of a GPU node see the GPUs: left to itself the embedder would go to the first one, eight times."""
    made = []
    monkeypatch.setattr(
        "tars_rewards.embedding.SentenceTransformerEmbedder",
        lambda name, device, dtype: made.append(device) or SimpleNamespace(encode=None),
    )
    for kwargs in ({}, {"embedder_device": None}, {"embedder_device": "cuda:3"}):
        assert TARSReward(**kwargs).embedder
    assert made == ["cpu", "cpu", "cuda:3"]
