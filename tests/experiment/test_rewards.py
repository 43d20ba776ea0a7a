"""The rewards of the controls, against rewards worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import rewards

from tars_rewards import Rollout
from tars_rewards.batch import RolloutBatch
from tars_rewards.errors import ConfigError
from tars_rewards.protocol import BaseScore
from tars_rewards.verl import TARSReward

RIGHT = "<think>one plus two is three so B</think><answer>The answer is B.</answer>"
UNREASONED = "<think></think><answer>The answer is B.</answer>"
# cos(EAST, NORTH) = 0, cos(EAST, MIDWAY) = 0.6.
EAST, NORTH, MIDWAY = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.6, 0.8])


class Refuse:
    def encode(self, texts):
        raise AssertionError(f"embedded {texts}")


def rollout(pair, modality, sample, *, right, states, embedding):
    return Rollout(
        pair, modality, sample, completion=f"{pair} {modality} {sample}", hidden_states=states[None],
        embedding=embedding, base=BaseScore(right, True, float(right) + 0.5),
    )  # fmt: skip


def batch():
    """Of pair "a" one right answer in each modality; of "b" right ones only in speech."""
    return [
        rollout("a", "speech", 0, right=True, states=EAST, embedding=EAST),
        rollout("a", "speech", 1, right=False, states=NORTH, embedding=MIDWAY),
        rollout("a", "text", 0, right=True, states=MIDWAY, embedding=EAST),
        rollout("a", "text", 1, right=False, states=EAST, embedding=NORTH),
        rollout("b", "speech", 0, right=True, states=EAST, embedding=EAST),
        rollout("b", "text", 0, right=False, states=MIDWAY, embedding=MIDWAY),
    ]


def without_embedder(reward):
    reward._given_embedder = Refuse()
    return reward


def test_the_batch_under_tars_itself():
    result = without_embedder(TARSReward())(batch())
    # "a": towards text 0 (MIDWAY, EAST). "b": no right text, so no reference.
    assert result.total.tolist() == pytest.approx([1.5 + 0.6 + 1, 0.5 + 0.8 + 0.6, 1.5, 0.5, 1.5, 0.5])


def test_symmetric_aligns_text_towards_right_speech_too():
    result = without_embedder(rewards.SymmetricReward(alpha=1, beta=0.5))(batch())
    text = [
        1.5 + 0.6 + 0.5 * 1.0,  # "a" text 0 (MIDWAY, EAST) towards speech 0 (EAST, EAST)
        0.5 + 1.0 + 0.5 * 0.0,  # "a" text 1 (EAST, NORTH) towards speech 0
        0.5 + 0.6 + 0.5 * 0.6,  # "b" text 0 towards "b" speech 0, although no text is right
    ]
    speech = [1.5 + 0.6 + 0.5 * 1.0, 0.5 + 0.8 + 0.5 * 0.6, 1.5]
    assert result.total.tolist() == pytest.approx([*speech[:2], *text[:2], speech[2], text[2]])
    assert result.reference.tolist() == [2, 2, 0, 0, -1, 4]
    assert result.components["representation"].tolist() == pytest.approx([0.6, 0.8, 0.6, 1.0, 0.0, 0.6])
    assert result.valid["behavior"].tolist() == [True, True, True, True, False, True]


def test_metrics_of_symmetric_are_those_of_what_was_rewarded():
    result = without_embedder(rewards.SymmetricReward(alpha=1, beta=0.5))(batch())
    metrics = result.metrics
    assert metrics["tars/total/text/mean"] == pytest.approx(float(result.total[[2, 3, 5]].mean()))
    assert metrics["tars/total/speech/mean"] == pytest.approx(float(result.total[[0, 1, 4]].mean()))
    assert metrics["tars/representation/text/mean"] == pytest.approx((0.6 + 1.0 + 0.6) / 3)
    assert metrics["tars/representation/speech/count"] == 2
    assert metrics["tars/pairs/without_reference"] == 0.5
    assert metrics["tars/pairs/without_speech_reference"] == 0.0
    assert metrics["tars/reward_gap"] == pytest.approx(2.5 / 3 - 3.5 / 3)


def test_symmetric_embeds_what_the_reward_loop_left_out():
    class Says:
        def encode(self, texts):
            assert texts == ["a text 1"]
            return NORTH[None]

    rollouts = batch()
    whole = without_embedder(rewards.SymmetricReward(alpha=0))(rollouts)
    rollouts[3] = Rollout(**{**vars(rollouts[3]), "embedding": None})
    reward = rewards.SymmetricReward(alpha=0)
    reward._given_embedder = Says()
    assert reward(rollouts).total.tolist() == whole.total.tolist()


@pytest.fixture
def teacher(tmp_path):
    """The base knew "b" only."""
    path = tmp_path / "teacher.parquet"
    row = {"pair_id": "b", "completion": "so B", "states": [NORTH.tolist()], "embedding": MIDWAY.tolist()}
    pd.DataFrame([row]).to_parquet(path)
    return path


def test_the_frozen_teacher_is_the_only_reference(teacher):
    result = without_embedder(rewards.FrozenTeacherReward(teacher=str(teacher), beta=2))(batch())
    # "a" has none, although one of its text completions is right. "b": cos(EAST, NORTH) = 0, cos(EAST, MIDWAY) = 0.6.
    assert result.total.tolist() == pytest.approx([1.5, 0.5, 1.5, 0.5, 1.5 + 0.0 + 2 * 0.6, 0.5])
    assert result.valid["behavior"].tolist() == [False, False, False, False, True, False]
    assert result.components["accuracy"].tolist() == [1, 0, 1, 0, 1, 0]
    assert result.reference.tolist() == [-1] * 6


def test_metrics_with_a_frozen_teacher_count_no_completion_of_it(teacher):
    metrics = without_embedder(rewards.FrozenTeacherReward(teacher=str(teacher)))(batch()).metrics
    assert metrics["tars/accuracy/text/count"] == 3
    assert metrics["tars/accuracy/text/mean"] == pytest.approx(1 / 3)
    assert metrics["tars/total/text/mean"] == pytest.approx(2.5 / 3)
    assert metrics["tars/total/speech/mean"] == pytest.approx((1.5 + 0.5 + 1.5 + 0.6) / 3)
    assert metrics["tars/reward_gap"] == pytest.approx(2.5 / 3 - 3.5 / 3)
    assert metrics["tars/pairs/without_reference"] == 0.5
    assert metrics["tars/behavior/speech/count"] == 1


@pytest.mark.parametrize("name", ["SymmetricReward", "FrozenTeacherReward", "ReasoningFormatReward"])
def test_a_batch_that_is_laid_out_already_earns_the_same(name, teacher):
    kwargs = {"teacher": str(teacher)} if name == "FrozenTeacherReward" else {}
    reward = without_embedder(getattr(rewards, name)(**kwargs))
    laid_out = RolloutBatch.from_rollouts(batch(), reward.config)
    assert reward(laid_out).total.tolist() == reward(batch()).total.tolist()


def test_a_teacher_that_is_not_there_is_told_of(tmp_path):
    with pytest.raises(ConfigError, match="there is no teacher at"):
        rewards.FrozenTeacherReward(teacher=str(tmp_path / "none.parquet"))


def test_reasoning_format_counts_only_where_the_answer_reasons():
    reward = rewards.ReasoningFormatReward(alpha=0, beta=0)
    assert reward.base(RIGHT, "B") == BaseScore(True, True, 1.5)
    assert reward.base(UNREASONED, "B") == BaseScore(True, False, 1.0)
    assert reward.base(UNREASONED, "A") == BaseScore(False, False, 0.0)
    assert reward.base(RIGHT, "B", truncated=True) == BaseScore(True, False, 1.0)
    assert TARSReward(alpha=0, beta=0).base(UNREASONED, "B").reward == 1.5


def test_reasoning_format_rewards_a_batch_by_the_same_rule():
    rollouts = [Rollout("a", "speech", i, completion=text, answer="B") for i, text in enumerate([RIGHT, UNREASONED])]
    rollouts += [Rollout("a", "text", 0, completion=UNREASONED, answer="A")]
    result = rewards.ReasoningFormatReward(alpha=0, beta=0)(rollouts)
    assert result.total.tolist() == [1.5, 1.0, 0.0]
    assert result.components["format"].tolist() == [1, 0, 0]
    assert result.metrics["tars/format/speech/mean"] == 0.5


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (RIGHT, True),
        (UNREASONED, False),
        ("<think>it must be B</think><answer>The answer is B.</answer>", False),  # four words
        ("<think>it surely must be B</think>", True),  # five
        ("<think>it surely must be B so", False),  # not closed
        ("it surely must be B </think>", False),
        ("", False),
    ],
)  # fmt: skip
def test_what_reasons(completion, expected):
    assert rewards.reasons(completion) is expected


@pytest.mark.parametrize("name", ["SymmetricReward", "FrozenTeacherReward"])
def test_states_in_other_processes_are_refused(name, teacher):
    kwargs = {"teacher": str(teacher)} if name == "FrozenTeacherReward" else {}
    with pytest.raises(ConfigError, match="finaliser_workers"):
        getattr(rewards, name)(**kwargs)(batch(), representation=lambda batch, reference: None)
