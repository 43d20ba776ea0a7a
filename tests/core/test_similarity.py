import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import distance

from tars_rewards.similarity import cosine

VECTORS = hnp.arrays(
    np.float32, (2, 3, 4), elements=st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
)


@given(VECTORS)
def test_against_scipy(pair: np.ndarray) -> None:
    values, valid = cosine(*torch.from_numpy(pair))
    for left, right, value, exists in zip(*pair, values.tolist(), valid.tolist(), strict=True):
        assert exists == bool(left.any() and right.any())
        expected = 1 - distance.cosine(left.astype(float), right.astype(float)) if exists else 0.0
        assert value == pytest.approx(expected, abs=1e-6)


@given(VECTORS, st.floats(1e-12, 1e12), st.floats(1e-12, 1e12))
def test_bounds_symmetry_scale(pair: np.ndarray, first: float, second: float) -> None:
    left, right = torch.from_numpy(pair)
    values, valid = cosine(left, right)
    assert (values.abs() <= 1).all()
    assert torch.equal(cosine(right, left)[0], values)
    scaled, still = cosine(left * first, right * second)
    assert torch.equal(still, valid)
    assert torch.allclose(scaled, values, atol=1e-5)
    assert torch.allclose(cosine(left, -right)[0], -values)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-20, 1e20, 1e30, 1e37])
def test_lengths_whose_squares_leave_float32(scale: float) -> None:
    left = torch.tensor([[3.0, 4.0]], dtype=torch.float64) * scale
    values, valid = cosine(left, torch.tensor([[4.0, 3.0]]))
    assert valid.all()
    assert values.item() == pytest.approx(0.96, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float32_whatever_comes(dtype: torch.dtype) -> None:
    """Massive-activation dimensions: squares of 300 overflow float16, and bfloat16 sums lose the small ones."""
    rng = np.random.default_rng(0)
    left = torch.from_numpy(rng.normal(size=(4, 512))).to(dtype)
    right = torch.from_numpy(rng.normal(size=(4, 512))).to(dtype)
    left[:, 7], right[:, 7] = 300.0, 301.0
    values, _ = cosine(left, right)
    expected = 1 - np.array(
        [distance.cosine(a, b) for a, b in zip(left.double().numpy(), right.double().numpy(), strict=True)]
    )
    assert values.dtype == torch.float32
    assert np.abs(values.numpy() - expected).max() < 1e-6


def test_zero_is_absent_not_nan() -> None:
    values, valid = cosine(torch.zeros(2, 3), torch.ones(2, 3))
    assert values.tolist() == [0.0, 0.0]
    assert valid.tolist() == [False, False]
