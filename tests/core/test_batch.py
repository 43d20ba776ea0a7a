import numpy as np
import pytest

from tars_rewards import Rollout, TARSConfig
from tars_rewards.batch import RolloutBatch
from tars_rewards.errors import DuplicateRolloutError, ModalityError, RolloutError

CONFIG = TARSConfig()


def test_columns() -> None:
    batch = RolloutBatch.from_rollouts(
        [
            Rollout("b", "text", sample_id=7, completion="x"),
            Rollout("a", "speech", completion="y", truncated=True),
            Rollout("b", "speech", completion=" \n"),
            Rollout("a", "speech", completion="z"),
        ],
        CONFIG,
    )
    assert batch.pair_ids == ["b", "a"]
    assert batch.pair.tolist() == [0, 1, 0, 1]
    assert batch.sample_id.tolist() == [7, 0, 0, 1]
    assert batch.is_target.tolist() == [False, True, True, True]
    assert batch.scorable.tolist() == [True, True, False, True]
    assert batch.describe(0) == "rollout 0 (pair 'b', text, sample 7)"


def test_truncated_can_be_left_out() -> None:
    rollouts = [Rollout("a", "speech", completion="y", truncated=True), Rollout("a", "text", completion="y")]
    batch = RolloutBatch.from_rollouts(rollouts, TARSConfig(skip_truncated=True))
    assert batch.scorable.tolist() == [False, True]


def test_other_modalities() -> None:
    config = TARSConfig(target_modality="image", anchor_modality="caption")
    batch = RolloutBatch.from_rollouts([Rollout("a", "image"), Rollout("a", "caption")], config)
    assert batch.is_target.tolist() == [True, False]


def test_numpy_sample_ids() -> None:
    batch = RolloutBatch.from_rollouts([Rollout("a", "text", sample_id=np.int64(3))], CONFIG)
    assert batch.sample_id.tolist() == [3]


@pytest.mark.parametrize(
    ("rollouts", "error", "message"),
    [
        ([], RolloutError, "at least one rollout"),
        ([{"pair_id": "a"}], RolloutError, "item 0 of the batch is a dict; expected tars_rewards.Rollout"),
        ([Rollout("a", "audio")], ModalityError, "modality 'audio'; expected 'speech' or 'text'"),
        ([Rollout("a", "Speech")], ModalityError, "modality 'Speech'"),
        ([Rollout(3, "text")], RolloutError, "expected a str pair_id, got 3"),
        ([Rollout("a", "text", completion=[1, 2])], RolloutError, "expected a str completion, got list"),
        ([Rollout("a", "text", sample_id="0")], RolloutError, "expected an integer sample_id"),
        ([Rollout("a", "text", sample_id=1.0)], RolloutError, "expected an integer sample_id"),
        ([Rollout("a", "text", sample_id=2**63)], RolloutError, "of 64 bits or None, got 9223372036854775808"),
        ([Rollout("a", "text", sample_id=-(2**63) - 1)], RolloutError, "of 64 bits"),
        ([Rollout("a", "text", correct=0.5)], RolloutError, r"correct to be True, False or None, got 0\.5; a graded"),
        ([Rollout("a", "text", correct=float("nan"))], RolloutError, "correct to be True, False or None, got nan"),
        ([Rollout("a", "text", correct="false")], RolloutError, "got 'false'"),
        ([Rollout("a", "text", correct=1)], RolloutError, "got 1"),
        ([Rollout("a", "text", truncated="False")], RolloutError, "truncated to be True or False, got 'False'"),
        ([Rollout("a", "text", truncated=None)], RolloutError, "truncated to be True or False, got None"),
        ([Rollout("a", "text", truncated=1.0)], RolloutError, "truncated to be True or False"),
        (
            [Rollout("a", "text", sample_id=1), Rollout("b", "text", sample_id=1), Rollout("a", "text", sample_id=1)],
            DuplicateRolloutError,
            r"rollouts 0 and 2 are both \(pair 'a', text, sample 1\)",
        ),
        ([Rollout("a", "text"), Rollout("a", "text", sample_id=0)], DuplicateRolloutError, "sample 0"),
    ],
)
def test_bad_batches(rollouts: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RolloutBatch.from_rollouts(rollouts, CONFIG)


def test_a_clash_with_a_default_sample_id_says_so() -> None:
    unnamed, named = Rollout("a", "text"), Rollout("a", "text", sample_id=1)
    with pytest.raises(DuplicateRolloutError, match="rollout 1 has no sample_id and got its order of appearance") as it:
        RolloutBatch.from_rollouts([named, unnamed], CONFIG)
    assert "padding rows" not in str(it.value)
    with pytest.raises(DuplicateRolloutError, match="number the samples, and drop padding rows"):
        RolloutBatch.from_rollouts([named, named], CONFIG)


def test_numpy_booleans_and_the_largest_sample_ids() -> None:
    rollouts = [
        Rollout("a", "text", sample_id=2**63 - 1, truncated=np.bool_(True), correct=np.bool_(False)),
        Rollout("a", "text", sample_id=-(2**63), correct=None),
    ]
    assert RolloutBatch.from_rollouts(rollouts, CONFIG).sample_id.tolist() == [2**63 - 1, -(2**63)]


def test_same_sample_in_both_modalities_is_no_duplicate() -> None:
    RolloutBatch.from_rollouts([Rollout("a", "text", sample_id=0), Rollout("a", "speech", sample_id=0)], CONFIG)
