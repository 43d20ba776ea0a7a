import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance

from tars_rewards import Rollout, TARSConfig
from tars_rewards.batch import RolloutBatch
from tars_rewards.errors import HiddenStatesError, LayerSelectionError
from tars_rewards.representation import representation_term, select_layers


def batch_of(states: list, modalities: str, **config: object) -> RolloutBatch:
    """One pair; a letter for each rollout: s(peech) or t(ext)."""
    names = {"s": "speech", "t": "text"}
    rollouts = [
        Rollout("q", names[letter], completion="x", hidden_states=state)
        for letter, state in zip(modalities, states, strict=True)
    ]
    return RolloutBatch.from_rollouts(rollouts, TARSConfig(**config))


def oracle(states: list[np.ndarray], reference: list[int], layers: list[int], center: list[int] | None) -> np.ndarray:
    """Double precision, one pair of vectors at a time, by scipy's own cosine; `center` numbers the groups."""
    states = [np.asarray(state, float) for state in states]
    if center is not None:
        means = {
            group: np.mean([s for s, g in zip(states, center, strict=True) if g == group], 0) for group in set(center)
        }
        states = [state - means[group] for state, group in zip(states, center, strict=True)]
    rows = np.zeros((len(states), len(layers)))
    for index, other in enumerate(reference):
        if other >= 0:
            rows[index] = [1 - distance.cosine(states[index][layer], states[other][layer]) for layer in layers]
    return rows


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["all", "last", [0, 2], (0.0, 0.5), [-1]]),
    st.booleans(),
)
def test_against_scipy(seed: int, layers: object, center: bool) -> None:
    """Unequal counts, several pairs."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 4, 17)
    speech = rng.random(17) < 0.6
    states = [(rng.normal(size=(4, 6)) + 2).astype(np.float32) for _ in pairs]
    rollouts = [
        Rollout(f"q{pair}", "speech" if s else "text", completion="x", hidden_states=state)
        for pair, s, state in zip(pairs, speech, states, strict=True)
    ]
    reference = [
        next((other for other in range(17) if pairs[other] == pair and not speech[other]), -1) if s else -1
        for pair, s in zip(pairs, speech, strict=True)
    ]
    batch = RolloutBatch.from_rollouts(rollouts, TARSConfig())
    term, per_layer = representation_term(batch, torch.tensor(reference), layers=layers, center=center)
    chosen = select_layers(layers, 4)
    expected = oracle(states, reference, chosen, pairs.tolist() if center else None)
    np.testing.assert_allclose(per_layer.numpy(), expected, atol=2e-5 if center else 2e-6)
    np.testing.assert_allclose(term.values.numpy(), expected.mean(1), atol=2e-5 if center else 2e-6)
    assert term.valid.tolist() == [other >= 0 for other in reference]
    assert per_layer.dtype == term.values.dtype == torch.float32


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_bounds_symmetry_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, 3, 5))

    def value(first: np.ndarray, second: np.ndarray) -> float:
        return representation_term(batch_of([first, second], "st"), torch.tensor([1, -1]))[0].values[0].item()

    assert -1 <= value(left, right) <= 1
    assert value(left, right) == pytest.approx(value(right, left), abs=1e-6)
    assert value(left * scale, right) == pytest.approx(value(left, right), abs=1e-5)
    assert value(left, left) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("center", [False, True])
def test_massive_dimensions_in_any_dtype(dtype: torch.dtype, center: bool) -> None:
    rng = np.random.default_rng(1)
    states = torch.from_numpy(rng.normal(size=(4, 6, 256)))
    states[:, :, 11] += 900.0
    states = states.to(dtype)
    batch = batch_of(list(states), "sstt")
    term, per_layer = representation_term(batch, torch.tensor([2, 3, -1, -1]), center=center)
    expected = oracle(list(states.double().numpy()), [2, 3, -1, -1], list(range(6)), [0] * 4 if center else None)
    assert np.abs(per_layer.numpy() - expected).max() < (1e-3 if center else 2e-6)
    assert term.valid.tolist() == [True, True, False, False]


def test_numpy_and_torch_mix_and_read_only_arrays_are_quiet() -> None:
    locked = np.ones((2, 3), np.float32)
    locked.setflags(write=False)
    graph = torch.ones(2, 3, requires_grad=True) * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        term, _ = representation_term(batch_of([locked, graph], "st"), torch.tensor([1, -1]))
    assert term.values[0].item() == pytest.approx(1)
    assert not term.values.requires_grad


def test_zero_vector_is_absent_not_nan() -> None:
    states = np.ones((3, 2, 4), np.float32)
    states[0, 1] = 0
    term, per_layer = representation_term(batch_of(list(states), "sst"), torch.tensor([2, 2, -1]))
    assert term.valid.tolist() == [False, True, False]
    assert term.values.tolist() == [0.0, pytest.approx(1), 0.0]
    assert torch.isfinite(per_layer).all()
    # a zero in a layer that is not asked for does no harm
    term, _ = representation_term(batch_of(list(states), "sst"), torch.tensor([2, 2, -1]), layers=[0])
    assert term.valid.tolist() == [True, True, False]


def test_centering_equal_states_is_absent_not_noise() -> None:
    state = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32) * 1000
    term, _ = representation_term(batch_of([state] * 7, "ssssttt"), torch.tensor([4] * 4 + [-1] * 3), center=True)
    assert not term.valid.any()
    assert not term.values.any()


def test_centering_takes_only_the_pairs_scorable_rollouts() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(5, 2, 4)).astype(np.float32) + 3
    names = ["speech", "text", "text", "speech", "text"]
    rollouts = [
        Rollout("q" if n < 3 else "r", name, completion="x", hidden_states=s)
        for n, (name, s) in enumerate(zip(names, states, strict=True))
    ]
    empty = Rollout("q", "speech", completion="", hidden_states=np.full((2, 4), np.nan))
    batch = RolloutBatch.from_rollouts([*rollouts, empty], TARSConfig())
    term, _ = representation_term(batch, torch.tensor([2, -1, -1, 4, -1, -1]), center=True)
    expected = oracle(list(states), [2, -1, -1, 4, -1], [0, 1], [0, 0, 0, 1, 1]).mean(1)
    np.testing.assert_allclose(term.values[:5].numpy(), expected, atol=1e-5)


LAYERS = [
    ("all", 3, [0, 1, 2]),
    ("last", 32, [30, 31]),
    ("last", 2, [0, 1]),
    ("last", 1, [0]),
    ("shallow", 32, list(range(10))),  # the paper's 1-10, 11-20, 21-30
    ("middle", 32, list(range(10, 20))),
    ("deep", 32, list(range(20, 30))),
    ("shallow", 28, list(range(9))),
    ("middle", 28, list(range(9, 17))),
    ("deep", 28, list(range(17, 26))),
    ("middle", 5, [1]),
    ("shallow", 3, [0]),
    ("deep", 3, [2]),
    ("middle", 4, [1, 2]),
    ([0, -1], 5, [0, 4]),
    ([3, 1], 5, [3, 1]),
    ((0.0, 1.0), 5, [0, 1, 2, 3, 4]),
    ((0.0, 0.5), 4, [0, 1]),
    ((0.5, 1.0), 4, [2, 3]),
    ((0.25, 0.75), 28, list(range(7, 21))),
]


@pytest.mark.parametrize(("layers", "count", "expected"), LAYERS)
def test_select_layers(layers: object, count: int, expected: list[int]) -> None:
    assert select_layers(layers, count) == expected


@pytest.mark.parametrize("count", range(3, 60))
def test_layer_groups_divide_the_depth(count: int) -> None:
    parts = [select_layers(name, count) for name in ("shallow", "middle", "deep")]
    depth = count - 2 if count >= 5 else count
    assert list(itertools.chain(*parts)) == list(range(depth))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 80), st.lists(st.floats(0.01, 0.99), max_size=3, unique=True).map(sorted))
def test_adjoining_fractions_divide_the_depth(count: int, cuts: list[float]) -> None:
    edges = [0.0, *cuts, 1.0]
    got: list[int] = []
    for start, stop in itertools.pairwise(edges):
        try:
            got += select_layers((start, stop), count)
        except LayerSelectionError:
            continue  # a range without a layer
    assert got == list(range(count))


@pytest.mark.parametrize(
    ("layers", "count", "message"),
    [
        ([3], 3, r"layers=\[3\] does not fit hidden states of 3 layers"),
        ([-4], 3, "does not fit"),
        ([0, 0], 3, "at most once"),
        ([2, -1], 3, "at most once"),
        ((0.01, 0.02), 10, "leaves none of the 10 layers"),
        ("middle", 2, "leaves none of the 2 layers"),
        ("shallow", 1, "leaves none"),
        ("medium", 3, "unknown layer group"),
    ],
)
def test_layers_that_do_not_fit(layers: object, count: int, message: str) -> None:
    with pytest.raises(LayerSelectionError, match=message):
        select_layers(layers, count)


GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "has no hidden_states; with alpha > 0"),
        (np.ones((3, 3), np.float32), r"shape \(3, 3\), but rollout 0 .* has \(2, 3\)"),
        (np.ones((2, 4), np.float32), r"shape \(2, 4\), but"),
        (np.ones(3, np.float32), r"shape \(3,\).*expected floating-point \[layers, hidden\]"),
        (np.ones((1, 2, 3), np.float32), r"shape \(1, 2, 3\)"),
        (np.ones((0, 3), np.float32), r"shape \(0, 3\)"),
        (np.ones((2, 3), int), "dtype torch.int64"),
        (np.array([[1, 2, np.nan], [1, 2, 3]]), "NaN or inf"),
        (np.array([[1, 2, np.inf], [1, 2, 3]]), "NaN or inf"),
        (np.array([[np.inf, -np.inf, 0], [1, 2, 3]]), "NaN or inf"),
        (np.full((2, 3), 1e300), "finite in float32"),
        ("states", "no array"),
        ([["a"]], "no array"),
    ],
)
@pytest.mark.parametrize("modalities", ["st", "ts"])
def test_bad_states(bad: object, message: str, modalities: str) -> None:
    batch = batch_of([GOOD, bad], modalities)
    with pytest.raises(HiddenStatesError, match=message) as caught:
        representation_term(batch, torch.tensor([-1, -1]))  # an error whether or not the rollout is compared
    assert "rollout 1 (pair 'q'" in str(caught.value)


def test_large_finite_states_are_no_error() -> None:
    """Their sum leaves float32, they do not."""
    batch = batch_of([np.full((2, 3), 3e38, np.float32), GOOD], "st")
    term, _ = representation_term(batch, torch.tensor([1, -1]))
    assert term.values[0].item() == pytest.approx(1)


def test_empty_completions_need_no_states() -> None:
    rollouts = [Rollout("q", "speech", completion="x", hidden_states=GOOD), Rollout("q", "text", completion=" ")]
    term, per_layer = representation_term(
        RolloutBatch.from_rollouts(rollouts, TARSConfig()), torch.tensor([-1, -1]), layers=[1]
    )
    assert not term.valid.any()
    assert per_layer.shape == (2, 1)
    nothing = [replace(rollouts[1], modality="speech"), rollouts[1]]
    term, per_layer = representation_term(RolloutBatch.from_rollouts(nothing, TARSConfig()), torch.tensor([-1, -1]))
    assert term.values.tolist() == [0.0, 0.0]
    assert per_layer.shape == (2, 0)
