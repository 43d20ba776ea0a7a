"""`on_embedder_failure`: the run stops, or the behavior term is left out of the whole batch; nothing else is forgiven."""

import math
import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from embedding_server import EmbeddingServer, Reply

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import ConfigError, EmbedderFailedError, EmbedderFailureWarning, EmbeddingError

INVALID = TARSConfig(on_embedder_failure="invalid")


class Failing:
    """Fails as told while `down`, then works."""

    model_id, max_tokens = "failing", math.inf

    def __init__(self, tools, failure):
        self.works, self.failure, self.down, self.asked = tools.HashEmbedder(), failure, True, 0

    def encode(self, texts):
        self.asked += 1
        if not self.down:
            return self.works.encode(texts)
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure(texts)


FAILURES = {
    "raises": ConnectionError("endpoint is down"),
    "one row": lambda texts: np.ones((1, 3)),
    "not finite": lambda texts: np.full((len(texts), 3), np.nan),
    "nothing": lambda texts: None,
}


def same(first, second):
    return torch.equal(first.total, second.total) and torch.equal(first.reference, second.reference)


@pytest.mark.parametrize("failure", FAILURES)
def test_by_default_the_run_stops(tools, failure):
    with pytest.raises(EmbedderFailedError):
        TARSReward(embedder=Failing(tools, FAILURES[failure]))(tools.make_batch(0))


@pytest.mark.parametrize("failure", FAILURES)
def test_or_the_term_is_left_out_counted_and_warned_of(tools, failure):
    rollouts = tools.make_batch(0)
    embedder = Failing(tools, FAILURES[failure])
    reward = TARSReward(INVALID, embedder=embedder)
    with pytest.warns(EmbedderFailureWarning, match=r"left out of the whole batch .*: (expected|what the embedder)"):
        result = reward(rollouts, step=3)
    without = TARSReward(TARSConfig(beta=0))(rollouts, step=3)  # to the bit what a run without the term gives
    assert same(result, without)
    assert not result.valid["behavior"].any()
    assert not result.components["behavior"].any()
    assert result.valid["representation"].any()
    compared = {*np.flatnonzero(result.reference >= 0), *result.reference[result.reference >= 0].tolist()}
    assert result.metrics["tars/behavior/embedder_failures"] == len(compared)
    assert result.metrics["tars/behavior/speech/count"] == 0
    assert "tars/behavior/speech/mean" not in result.metrics

    embedder.down = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = reward(rollouts, step=3)
    assert same(again, TARSReward(embedder=tools.HashEmbedder())(rollouts, step=3))
    assert again.metrics["tars/behavior/embedder_failures"] == 0


def test_where_it_stops_the_run_there_is_nothing_to_count(tools):
    assert (
        "tars/behavior/embedder_failures" not in TARSReward(embedder=tools.HashEmbedder())(tools.make_batch(0)).metrics
    )


def test_the_order_of_the_rollouts_is_of_no_matter(tools):
    rollouts = tools.make_batch(4)
    rollouts[5] = replace(rollouts[5], embedding_failed=True)
    order = random.Random(1).sample(range(len(rollouts)), len(rollouts))
    reward, totals = TARSReward(INVALID, embedder=tools.HashEmbedder()), []
    for given in (rollouts, [rollouts[index] for index in order]):
        with pytest.warns(EmbedderFailureWarning):
            totals.append(reward(given).total)
    assert torch.equal(totals[0][order], totals[1])


# ---- a failure that came earlier, while the completions were embedded one by one


PAIR = [
    Rollout("q", "speech", 0, completion="one", correct=False, embedding=[1.0, 0.0]),
    Rollout("q", "speech", 1, completion="two", correct=True, embedding=[1.0, 0.0]),
    Rollout("q", "text", 0, completion="three", correct=True, embedding=[1.0, 1.0]),
    Rollout("q", "text", 1, completion="four", correct=False, embedding=[1.0, 1.0]),
]
ALONE = replace(INVALID, alpha=0)


@pytest.mark.parametrize("which", [0, 2])
def test_one_failure_that_counts_leaves_the_term_out_everywhere(tools, which):
    """Or the completion without the term would earn less than the others of its question, for nothing it did."""
    rollouts = [replace(item, embedding=None, embedding_failed=index == which) for index, item in enumerate(PAIR)]
    with pytest.warns(EmbedderFailureWarning, match=r"failed on 1 of 4 completions.*pair 'q'.*embedding_failed"):
        result = TARSReward(ALONE, embedder=Failing(tools, AssertionError("asked")))(rollouts)
    assert not result.valid["behavior"].any()
    assert result.total.tolist() == [0, 1, 1, 0]
    assert result.metrics["tars/behavior/embedder_failures"] == 1
    with pytest.raises(EmbedderFailedError, match="embedding_failed"):
        TARSReward(replace(ALONE, on_embedder_failure="stop"))(rollouts)


@pytest.mark.parametrize("mode", ["stop", "invalid"])
def test_a_failure_on_what_is_not_compared_changes_nothing(mode):
    rollouts = [*PAIR[:3], replace(PAIR[3], embedding=None, embedding_failed=True)]
    config = replace(ALONE, on_embedder_failure=mode)
    result = TARSReward(config)(rollouts)
    assert result.components["behavior"].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])
    assert result.metrics.get("tars/behavior/embedder_failures") == (1 if mode == "invalid" else None)


def test_the_mark_is_a_truth_value():
    with pytest.raises(ValueError, match=r"expected embedding_failed to be True or False, got 'no'"):
        TARSReward(ALONE)([replace(PAIR[0], embedding_failed="no")])


# ---- what is no failure of the embedder


def test_a_malformed_rollout_is_none(tools):
    rollouts = [replace(PAIR[0], embedding=[float("nan"), 1.0]), *PAIR[1:]]
    with pytest.raises(EmbeddingError, match="NaN"):
        TARSReward(ALONE)(rollouts)
    with pytest.raises(EmbeddingError, match="one dimension"):
        TARSReward(ALONE)([replace(PAIR[0], embedding=[1.0]), *PAIR[1:]])


def test_a_mistake_of_ours_is_none(tools, monkeypatch):
    monkeypatch.setattr("tars_rewards.behavior.cosine", lambda left, right: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TARSReward(INVALID, embedder=tools.HashEmbedder())(tools.make_batch(0))


def test_a_full_disk_is_none(tools, monkeypatch, tmp_path):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("tars_rewards.cache.EmbeddingStore.put", full)
    config = replace(INVALID, embedding_cache=tmp_path)
    with pytest.raises(OSError, match="no space left"):
        TARSReward(config, embedder=tools.HashEmbedder())(tools.make_batch(0))


@pytest.mark.parametrize("mistake", [ConfigError("no key"), ImportError("no httpx")])
def test_mistakes_of_the_set_up_are_none(tools, mistake):
    with pytest.raises(type(mistake), match="no "):
        TARSReward(INVALID, embedder=Failing(tools, mistake))(tools.make_batch(0))


def test_a_key_that_is_not_there_is_none(tools, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    config = replace(INVALID, embedder_url="http://127.0.0.1:9/v1", embedder_api_key_var="NO_KEY")
    with pytest.raises(ConfigError, match="NO_KEY"):
        TARSReward(config)(tools.make_batch(0))


# ---- a real endpoint


def test_an_endpoint_that_fails_for_good_and_recovers(tools):
    rollouts = tools.make_batch(0)
    with EmbeddingServer(Reply(503), always=Reply(401, "who are you?")) as server:
        reward = TARSReward(replace(INVALID, embedder="m", embedder_url=server.url))
        with pytest.warns(EmbedderFailureWarning, match=r"got status 401: 'who are you\?'"):
            result = reward(rollouts)
        assert same(result, TARSReward(TARSConfig(beta=0))(rollouts))
        assert len(server.requests) == 2
        server.always = None
        with pytest.warns(UserWarning, match="does not tell its window"):
            assert reward(rollouts).valid["behavior"].any()
