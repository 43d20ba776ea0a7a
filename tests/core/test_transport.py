"""Packed states against what they were packed from: every value, cosines, and whole rewards."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import HiddenStatesError
from tars_rewards.transport import PackedStates, pack_states

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
STATES = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=FINITE)


@settings(deadline=None)
@given(STATES)
def test_no_value_moves_by_more_than_half_a_step(states: np.ndarray) -> None:
    packed = pack_states(torch.from_numpy(states))
    found = packed.unpack().numpy()
    sizes = np.sort(np.abs(states.astype(float)), axis=1)
    peak = sizes[:, -9, None] if states.shape[1] > 8 else np.zeros((len(states), 1))
    # A layer's scale is no smaller than the 2**40th part of its largest value, and a normal number.
    step = np.maximum(np.maximum(peak / 32767, sizes[:, -1:] * 2.0**-40), 2.0**-126)
    # The scale, the division and the product are rounded to float32 too.
    allowed = np.where(np.abs(states) > peak, 0, step / 2) + 3e-7 * np.abs(states) + 2.0**-149 * (1 + step)
    assert (np.abs(found - states.astype(float)) <= allowed).all()
    assert (found[states == 0] == 0).all()
    assert np.isfinite(found).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1e4), st.floats(0.01, 1))
def test_a_cosine_moves_by_less_than_a_hundred_thousandth(seed: int, massive: float, spread: float) -> None:
    """Also where a few large dimensions dominate that differ from rollout to rollout."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=512) + spread * rng.normal(size=(16, 512))
    states[:, :2] += massive * (1 + spread * rng.normal(size=(16, 2)))
    states = states.astype(np.float32)
    found = pack_states(torch.from_numpy(states)).unpack().numpy()
    before, after = (_cosines(each) for each in (states, found))
    assert np.abs(before - after).max() < 1e-5
    # Without the mean, which is nearly all of the two large ones; rounding is then set against the share that differs.
    before, after = (_cosines(each - each.astype(float).mean(0)) for each in (states, found))
    assert np.abs(before - after).max() < 1e-5 / spread


def _cosines(states: np.ndarray) -> np.ndarray:
    unit = states.astype(float) / np.linalg.norm(states.astype(float), axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_two_bytes_a_value_and_72_a_layer(dtype: torch.dtype) -> None:
    packed = pack_states(torch.randn(3, 5, 70).to(dtype))
    assert (packed.steps.dtype, packed.steps.shape, packed.steps.nbytes) == (torch.int16, (3, 5, 70), 2 * 1050)
    assert (packed.side.dtype, packed.side.shape, packed.side.nbytes) == (torch.float32, (3, 5, 18), 72 * 15)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), 1e39], ids=["nan", "inf", "-inf", "inf in float32"]
)
@pytest.mark.parametrize("how_many", [1, 20, 39])
def test_what_is_not_finite_is_refused_as_before(value: float, how_many: int) -> None:
    states = torch.ones(2, 3, 40, dtype=torch.float64)
    states[1, 2, 1 : 1 + how_many] = value
    packed = pack_states(states)
    assert packed.unpack().isfinite().all(dim=-1).tolist() == [[True] * 3, [True, True, False]]
    rollouts = [
        Rollout("q", "speech", completion="x", correct=True, hidden_states=packed[0]),
        Rollout("q", "text", completion="x", correct=True, hidden_states=packed[1]),
    ]
    for center in (False, True):
        reward = TARSReward(TARSConfig(beta=0, center=center))
        with pytest.raises(HiddenStatesError, match=r"rollout 1 \(pair 'q'.*has NaN or inf"):
            reward(rollouts)
        with pytest.raises(HiddenStatesError, match="has NaN or inf"):
            reward([rollouts[1]])  # compared with nothing


def test_a_zero_state_stays_one(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0, right=1.0)
    empty = pack_states(torch.zeros(3, 5))
    assert not empty.unpack().any()
    rollouts[0] = replace(rollouts[0], hidden_states=empty)
    result = TARSReward(TARSConfig(beta=0))(rollouts)
    assert result.valid["representation"].tolist() == [not (row % 8 > 3 or row == 0) for row in range(len(rollouts))]
    assert result.total.isfinite().all()


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("layers", ["all", "last", [1]])
def test_rewards_of_packed_states(tools: SimpleNamespace, center: bool, layers: object) -> None:
    """The same as of the float32 states they stand for; some rollouts packed and some not."""
    config = TARSConfig(beta=0, center=center, layers=layers, return_layers=True)
    rollouts = tools.make_batch(1)
    # A scale that differs from rollout to rollout: the mean of a pair must be taken of what the values stand for.
    states = [
        torch.from_numpy(rollout.hidden_states).repeat(1, 9) * (1 + row % 3) for row, rollout in enumerate(rollouts)
    ]
    packed = [pack_states(each) for each in states]
    ours = [
        replace(rollout, hidden_states=each if row % 4 else each.unpack())
        for row, (rollout, each) in enumerate(zip(rollouts, packed, strict=True))
    ]
    plain = [replace(rollout, hidden_states=each.unpack()) for rollout, each in zip(rollouts, packed, strict=True)]
    exact = [replace(rollout, hidden_states=each) for rollout, each in zip(rollouts, states, strict=True)]
    result, same, original = (TARSReward(config)(each) for each in (ours, plain, exact))
    torch.testing.assert_close(result.layer_similarity, same.layer_similarity, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.layer_similarity, original.layer_similarity, rtol=0, atol=1e-4)
    assert torch.equal(result.reference, original.reference)
    assert torch.equal(result.valid["representation"], original.valid["representation"])


def test_packed_states_of_another_shape_are_named(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(0, pairs=1)
    rollouts[1] = replace(rollouts[1], hidden_states=pack_states(torch.ones(4, 5)))
    with pytest.raises(HiddenStatesError, match=r"rollout 1 .* of shape \(4, 5\), but rollout 0 .* has \(3, 5\)"):
        TARSReward(TARSConfig(beta=0))(rollouts)
    rollouts[1] = replace(rollouts[1], hidden_states=pack_states(torch.ones(2, 4, 5)))
    with pytest.raises(HiddenStatesError, match=r"rollout 1 .* of shape \(2, 4, 5\)"):
        TARSReward(TARSConfig(beta=0))(rollouts)


def test_as_an_array_and_between_processes() -> None:
    states = torch.tensor([[0.5, -32767.0], [3.0, 0.0]])
    packed: PackedStates = pickle.loads(pickle.dumps(pack_states(states[None])))[0]
    assert len(packed) == 2
    assert np.asarray(packed).dtype == np.float32
    np.testing.assert_allclose(np.asarray(packed), states, rtol=3e-7)
    flat = PackedStates.from_flat(packed.steps.flatten(), packed.side.flatten())
    np.testing.assert_allclose(np.asarray(flat), states, rtol=3e-7)
    assert np.asarray(packed, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(packed, copy=False)


def test_the_original_is_not_touched_and_carries_no_graph() -> None:
    states = torch.randn(2, 3, requires_grad=True)
    before = states.detach().clone()
    packed = pack_states(states)
    assert torch.equal(states, before)
    assert not packed.side.requires_grad
