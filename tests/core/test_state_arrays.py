"""Hidden states as they may arrive: views, foreign byte orders, lists, and zero states under centring."""

import numpy as np
import pytest
import torch
from scipy.spatial import distance

from tars_rewards import Rollout, TARSConfig, TARSReward

STATES = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)


def similarity(states: list, **config: object) -> tuple[list[float], list[bool]]:
    """Values and validity of the representation term; the last state is the anchor's, the others are targets."""
    last = len(states) - 1
    rollouts = [
        Rollout("q", "text" if n == last else "speech", completion="x", correct=True, hidden_states=state)
        for n, state in enumerate(states)
    ]
    result = TARSReward(TARSConfig(beta=0, **config))(rollouts)
    return result.components["representation"].tolist(), result.valid["representation"].tolist()


@pytest.mark.parametrize(
    "odd",
    [
        lambda states: states[::-1][::-1],
        lambda states: np.ascontiguousarray(states[::-1, ::-1])[::-1, ::-1],
        lambda states: states.astype(">f4"),
        lambda states: states.astype(">f8"),
        lambda states: np.asfortranarray(states),
        lambda states: np.repeat(states, 2, axis=1)[:, ::2],
        lambda states: states.tolist(),
        lambda states: torch.from_numpy(states.copy()).T.contiguous().T,
    ],
    ids=["reversed twice", "negative strides", "big-endian", "big-endian double", "fortran", "strided", "list", "T"],
)
def test_layout_and_byte_order_do_not_matter(odd: object) -> None:
    plain = similarity([STATES[0], STATES[1]])
    assert similarity([odd(STATES[0]), STATES[1]]) == plain
    assert similarity([STATES[0], odd(STATES[1])]) == plain


def test_a_zero_state_is_left_out_of_the_mean() -> None:
    """In one layer of one rollout: there the others' mean is theirs alone, and the rollout is not valid."""
    rng = np.random.default_rng(1)
    states = rng.normal(size=(5, 2, 8)).astype(np.float32) + 2
    states[1, 0] = 0
    values, valid = similarity(list(states), center=True)
    assert valid == [True, False, True, True, False]
    for target in (0, 2, 3):
        present = [[n for n in range(5) if states[n, layer].any()] for layer in range(2)]
        means = [states[rows, layer].mean(0) for layer, rows in enumerate(present)]
        expected = np.mean([1 - distance.cosine(states[target, n] - means[n], states[4, n] - means[n]) for n in (0, 1)])
        assert values[target] == pytest.approx(expected, abs=1e-5)


def test_a_zero_anchor_state_makes_its_comparisons_invalid() -> None:
    values, valid = similarity([STATES[0], STATES[1], STATES[0] * 0], center=True)
    assert valid == [False] * 3
    assert values == [0.0] * 3


def test_all_states_zero() -> None:
    assert similarity([STATES[0] * 0] * 3, center=True) == ([0.0] * 3, [False] * 3)
