"""Cosines of pooled states at real sizes: against float64, and to the bit whatever else is in the batch."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from tars_rewards import RewardResult, Rollout, TARSConfig, TARSReward
from tars_rewards.transport import pack_states

LAYERS, HIDDEN = 6, 3584


def rollouts_of(pairs: int, *, seed: int = 0, massive: float = 0.0, spread: float = 0.5) -> list[Rollout]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for pair in range(pairs):
        shared = torch.randn(LAYERS, HIDDEN, generator=generator)
        for sample in range(6):
            states = shared + spread * torch.randn(LAYERS, HIDDEN, generator=generator)
            states[:, 7:10] += massive * (1 + spread * torch.randn(LAYERS, 3, generator=generator))
            modality, number = ("speech", sample) if sample < 4 else ("text", sample - 4)
            made.append(Rollout(f"q{pair}", modality, number, "x", correct=True, hidden_states=states))
    return made


def by_identity(rollouts: list[Rollout], result: RewardResult) -> dict[tuple, list[float]]:
    assert result.layer_similarity is not None
    return {
        (rollout.pair_id, rollout.modality, rollout.sample_id): [float(total), *similarity.tolist()]
        for rollout, total, similarity in zip(rollouts, result.total, result.layer_similarity, strict=True)
    }


@pytest.mark.parametrize("massive", [0, 30, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reward_is_that_of_float64_to_a_millionth(massive: float, dtype: torch.dtype) -> None:
    rollouts = [replace(each, hidden_states=each.hidden_states.to(dtype)) for each in rollouts_of(3, massive=massive)]
    result = TARSReward(TARSConfig(beta=0))(rollouts)
    for row, reference in enumerate(result.reference.tolist()):
        if reference >= 0:
            ours, theirs = (rollouts[index].hidden_states.double().numpy() for index in (row, reference))
            norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            expected = ((ours * theirs).sum(axis=1) / norms).mean()
            assert abs(result.components["representation"][row].item() - expected) < 1e-6


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_order_and_company_do_not_change_a_bit(center: bool, packed: bool) -> None:
    rollouts = rollouts_of(5, massive=30)
    rollouts[3] = replace(rollouts[3], hidden_states=rollouts[3].hidden_states * 1e-25)  # takes the way over float64
    if packed:
        rollouts = [replace(each, hidden_states=pack_states(each.hidden_states)) for each in rollouts]
    reward = TARSReward(TARSConfig(beta=0, center=center, return_layers=True))
    whole = by_identity(rollouts, reward(rollouts))
    for seed in range(3):
        shuffled = random.Random(seed).sample(rollouts, len(rollouts))
        assert by_identity(shuffled, reward(shuffled)) == whole
    parts: dict[tuple, list[float]] = {}
    for pair in range(5):
        part = [each for each in rollouts if each.pair_id == f"q{pair}"]
        parts |= by_identity(part, reward(part))
    assert parts == whole


@pytest.mark.parametrize("center", [False, True])
def test_extreme_lengths(center: bool) -> None:
    """Squares beyond float32, in some layers of some rollouts; the cosine does not depend on length."""
    rollouts = rollouts_of(2)
    if center:  # the mean of a pair does; so all of a pair grow alike
        grown = [replace(each, hidden_states=each.hidden_states * 1e30) for each in rollouts]
    else:
        grown = [
            replace(each, hidden_states=each.hidden_states * 10.0 ** (20 * (row % 3 - 1)))
            for row, each in enumerate(rollouts)
        ]
    reward = TARSReward(TARSConfig(beta=0, center=center))
    expected, found = reward(rollouts), reward(grown)
    torch.testing.assert_close(found.total, expected.total, rtol=0, atol=1e-6)
    assert torch.equal(found.valid["representation"], expected.valid["representation"])


def test_a_mean_of_large_states_does_not_leave_float32() -> None:
    """The sum of a pair's states does; float64 holds it, and what is left of each is compared."""
    states = np.full((4, 1, 3), 3e38, np.float32)
    states[:, 0, 0] = [1e38, 2e38, 1e38, 2e38]
    rollouts = [
        Rollout("q", "speech" if row < 2 else "text", completion="x", correct=row == 2, hidden_states=each)
        for row, each in enumerate(states)
    ]
    result = TARSReward(TARSConfig(beta=0, center=True))(rollouts)
    assert result.components["representation"].tolist() == [pytest.approx(1), pytest.approx(-1), 0, 0]
