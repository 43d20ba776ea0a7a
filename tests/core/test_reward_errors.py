import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import (
    ConfigError,
    EmbeddingError,
    HiddenStatesError,
    LayerSelectionError,
    MissingAnswerError,
    TARSError,
)

quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


class OnesEmbedder:
    max_tokens = math.inf

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 2))


STATE = np.ones((2, 3), np.float32)
GOOD = [
    Rollout("q", "speech", 0, "a", correct=True, hidden_states=STATE),
    Rollout("q", "text", 0, "b", correct=True, hidden_states=STATE),
]


@pytest.mark.parametrize(
    ("rollouts", "error", "message"),
    [
        ([replace(GOOD[0], modality="video"), GOOD[1]], TARSError, "'video'; expected 'speech' or 'text'"),
        ([*GOOD, GOOD[0]], TARSError, "rollouts 0 and 2"),
        ([replace(GOOD[0], hidden_states=None), GOOD[1]], HiddenStatesError, "has no hidden_states"),
        ([GOOD[0], replace(GOOD[1], hidden_states=None)], HiddenStatesError, "has no hidden_states"),
        ([GOOD[0], replace(GOOD[1], hidden_states=STATE[:, :2])], HiddenStatesError, "expected one shape"),
        ([GOOD[0], replace(GOOD[1], hidden_states=STATE * np.nan)], HiddenStatesError, "NaN or inf"),
        ([GOOD[0], replace(GOOD[1], hidden_states=STATE * np.inf)], HiddenStatesError, "NaN or inf"),
        ([replace(GOOD[0], embedding=np.array([np.nan])), GOOD[1]], EmbeddingError, "NaN or inf"),
        (
            [GOOD[0], replace(GOOD[1], correct=None)],
            MissingAnswerError,
            r"rollout 1 \(pair 'q', text, sample 0\): .*got None",
        ),
        ([GOOD[0], replace(GOOD[1], correct=None, answer="?")], MissingAnswerError, "letter or a digit"),
    ],
)
def test_bad_rollouts(rollouts: list[Rollout], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TARSReward(embedder=OnesEmbedder())(rollouts)


def test_bad_layers_and_embedders(tmp_path) -> None:
    with pytest.raises(LayerSelectionError, match="hidden states of 2 layers"):
        TARSReward(TARSConfig(layers=[5]), embedder=OnesEmbedder())(GOOD)
    with pytest.raises(ConfigError, match="encode"):
        TARSReward(embedder=lambda texts: texts)
    with pytest.raises(ConfigError, match="has no model_id"):
        TARSReward(TARSConfig(embedding_cache=tmp_path), embedder=OnesEmbedder())
    wrong_count = SimpleNamespace(encode=lambda texts: np.ones((1, 2)))
    with pytest.raises(EmbeddingError, match=r"shape \(1, 2\); expected \[2, dim\]"):
        TARSReward(embedder=wrong_count)(GOOD)


@pytest.mark.parametrize("step", [3.0, "3", None, np.float64(3), torch.tensor(3.0)])
def test_a_step_that_is_no_integer(step: object) -> None:
    with pytest.raises(ConfigError, match=r"expected an integer step, got .*; use int\(…\)"):
        TARSReward(TARSConfig(alpha=0, beta=0))(GOOD, step=step)


def test_integers_of_every_kind_are_the_same_step(tools: SimpleNamespace) -> None:
    rollouts, reward = tools.make_batch(0), TARSReward(TARSConfig(alpha=0, beta=0))
    for step in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert torch.equal(reward(rollouts, step=step).reference, reward(rollouts, step=3).reference)


def test_a_config_must_be_one() -> None:
    with pytest.raises(ConfigError, match=r"expected a TARSConfig, got dict: .*TARSConfig\.from_mapping"):
        TARSReward({"alpha": 1})


def test_without_the_behavior_term_the_embedder_is_not_looked_at(tmp_path) -> None:
    config = TARSConfig(alpha=0, beta=0, embedding_cache=tmp_path)
    for embedder in (object(), OnesEmbedder()):
        reward = TARSReward(config, embedder=embedder)
        assert reward(GOOD).total.tolist() == [1.0, 1.0]
        with pytest.raises(ConfigError):  # by the time that it is used
            reward.embed(["a"])


def test_gold_completion_earns_everything(minilm_dir: str) -> None:
    """The right answer, said alike in both modalities, earns 1 + 0.5 + 1 + 1."""
    text = "<think>9 is more than 4.</think><answer>The answer is B.</answer>"
    rollouts = [Rollout("q", m, completion=text, answer="B", hidden_states=STATE) for m in ("speech", "text")]
    result = TARSReward(TARSConfig(embedder=minilm_dir, embedder_device="cpu"))(rollouts)
    assert result.total.tolist() == pytest.approx([3.5, 1.5], abs=1e-5)
