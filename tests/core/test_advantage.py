import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_rewards import modality_normalized_advantages
from tars_rewards.errors import RolloutError

ROWS = st.lists(
    st.tuples(st.floats(-3, 3, width=32), st.sampled_from(["p", "q", "r"]), st.sampled_from(["speech", "text"])),
    min_size=1,
    max_size=24,
)


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_against_numpy(rows: list, scale: bool) -> None:
    rewards, pairs, modalities = map(list, zip(*rows, strict=True))
    got = modality_normalized_advantages(rewards, pairs, modalities, scale=scale)
    for index, row in enumerate(rows):
        group = np.array([other[0] for other in rows if other[1:] == row[1:]])
        expected = row[0] - group.mean() if len(group) > 1 else row[0]
        if scale:
            expected /= (group.std(ddof=1) if len(group) > 1 else 1.0) + 1e-6
        assert got[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("scale", [False, True])
def test_against_verl(scale: bool) -> None:
    """Stock verl, with a uid per (question, modality), as its dataset rows give it; a group of one included."""
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    rng = np.random.default_rng(0)
    pairs = [f"q{n}" for n in rng.integers(0, 6, 64)] + ["alone"]
    modalities = [("speech", "text")[n] for n in rng.integers(0, 2, 64)] + ["speech"]
    rewards = torch.from_numpy(rng.normal(1.0, 0.7, 65).astype(np.float32))
    mask = torch.ones(65, 5)
    mask[:, 3:] = 0
    token_rewards = torch.zeros(65, 5)
    token_rewards[:, 2] = rewards
    uid = np.array([f"{pair}/{modality}" for pair, modality in zip(pairs, modalities, strict=True)], dtype=object)
    theirs, _ = core_algos.compute_grpo_outcome_advantage(token_rewards, mask, uid, norm_adv_by_std_in_grpo=scale)
    ours = modality_normalized_advantages(rewards, pairs, modalities, scale=scale)
    assert torch.allclose(theirs, ours[:, None] * mask, atol=2e-6)
    assert ours[-1] != 0


def test_one_modality_does_not_shift_the_other() -> None:
    rewards, pairs, modalities = [1.0, 0.0, 5.0, 3.0], ["q"] * 4, ["speech", "speech", "text", "text"]
    assert modality_normalized_advantages(rewards, pairs, modalities)[:2].tolist() == [0.5, -0.5]
    rewards[2] = 100.0
    assert modality_normalized_advantages(rewards, pairs, modalities)[:2].tolist() == [0.5, -0.5]


def test_equal_rewards_give_zero_also_scaled() -> None:
    assert modality_normalized_advantages([0.3] * 4, ["q"] * 4, ["text"] * 4, scale=True).tolist() == [0.0] * 4
    assert modality_normalized_advantages([0.1] * 3, ["q"] * 3, ["text"] * 3, scale=True).tolist() == [0.0] * 3


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_groups_are_formed_by_value(kind: object) -> None:
    """The elements of a tensor are hashed by identity: each would be a group of its own."""
    pair_ids, modalities = kind([7, 7, 8, 8, 7]), kind([0, 0, 0, 0, 1])
    got = modality_normalized_advantages([1.0, 0.0, 5.0, 3.0, 2.0], pair_ids, modalities)
    assert got.tolist() == [0.5, -0.5, 1.0, -1.0, 2.0]


def test_dtype() -> None:
    assert modality_normalized_advantages(np.ones(1), ["q"], ["text"]).dtype == torch.float32
    assert modality_normalized_advantages(torch.ones(1).bfloat16(), ["q"], ["text"]).dtype == torch.bfloat16
    assert modality_normalized_advantages([1, 2], ["q", "q"], ["text", "text"]).dtype == torch.float32


def test_bad_input() -> None:
    with pytest.raises(RolloutError, match="one reward, pair_id and modality"):
        modality_normalized_advantages([1.0], ["q", "q"], ["text", "text"])
    with pytest.raises(RolloutError, match="NaN or inf"):
        modality_normalized_advantages([1.0, float("nan")], ["q", "q"], ["text", "text"])
