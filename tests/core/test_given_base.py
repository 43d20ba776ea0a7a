"""Rollouts that bring their base score along: it is used as it is."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tars_rewards import BaseScore, Rollout, TARSConfig, TARSReward
from tars_rewards.errors import RolloutError

OFF = TARSConfig(alpha=0, beta=0)
MINE = BaseScore(correct=True, format=False, reward=0.7)


def test_a_given_base_score_is_used_as_it_is() -> None:
    rollouts = [
        Rollout("q", "speech", 0, "x", answer="B", correct=False, base=MINE),
        Rollout("q", "speech", 1, "x", answer=None, truncated=True, base=BaseScore(False, True, -2.5)),
        Rollout("q", "text", 0, "x", answer="?!", correct=None, base=MINE),
    ]
    result = TARSReward(OFF)(rollouts)
    assert result.total.tolist() == pytest.approx([0.7, -2.5, 0.7])
    assert result.components["accuracy"].tolist() == [1.0, 0.0, 1.0]
    assert result.components["format"].tolist() == [0.0, 1.0, 0.0]
    assert result.reference.tolist() == [2, 2, -1]  # the verdict on the anchor is the score's too


def test_the_text_of_a_scored_rollout_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("the text was parsed")

    monkeypatch.setattr("tars_rewards.reward.base_score", parsed)
    TARSReward(OFF)([Rollout("q", "text", completion="x", base=MINE)])
    with pytest.raises(AssertionError, match="was parsed"):
        TARSReward(OFF)([Rollout("q", "text", completion="x", answer="B")])


def test_handing_the_own_base_score_in_changes_nothing(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(2)
    reward = TARSReward(TARSConfig(format_weight=0.3), embedder=tools.HashEmbedder())
    handed = [replace(r, answer=None, base=reward.base(r.completion, r.answer)) for r in rollouts]
    first, second = reward(rollouts), reward(handed)
    assert torch.equal(first.total, second.total)
    assert torch.equal(first.reference, second.reference)
    assert first.metrics["tars/reward_gap"] == second.metrics["tars/reward_gap"]


def test_the_reward_gap_is_that_of_the_base_rewards() -> None:
    rollouts = [
        Rollout("q", "speech", completion="x", base=BaseScore(False, False, 0.25)),
        Rollout("q", "text", completion="x", base=BaseScore(True, True, 10.0)),
    ]
    assert TARSReward(OFF)(rollouts).metrics["tars/reward_gap"] == 9.75


def test_it_is_the_last_field_and_takes_part_in_comparison_and_pickling() -> None:
    rollout = Rollout("q", "text", base=MINE)
    assert list(Rollout.__dataclass_fields__)[-1] == "base"
    assert rollout == Rollout("q", "text", base=MINE) != Rollout("q", "text")
    assert pickle.loads(pickle.dumps(rollout)) == rollout
    assert Rollout("q", "text", base=BaseScore(np.bool_(True), np.bool_(False), np.float32(0.5))).base.reward == 0.5


@pytest.mark.parametrize(
    "base",
    [
        1.0,
        (True, True, 1.5),
        {"correct": True},
        BaseScore(True, True, float("nan")),
        BaseScore(True, True, float("-inf")),
        BaseScore(True, True, 1e39),  # infinite in float32, as totals are
        BaseScore(True, True, "1.5"),
        BaseScore(True, True, None),
        BaseScore(0.5, True, 1.0),
        BaseScore(True, None, 1.0),
    ],
)
def test_something_else_as_base_score(base: object) -> None:
    with pytest.raises(RolloutError, match=r"rollout 0 \(pair 'q'\): expected a BaseScore\(.*finite.* got "):
        TARSReward(OFF)([Rollout("q", "text", completion="x", base=base)])
