import random
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tars_rewards.reference import choose_references, reference_draws


def choose(pair: list[str], modality: list[str], sample: list[int], right: list[bool], *, seed: int = 0, step: int = 0):
    names = list(dict.fromkeys(pair))
    codes, samples = np.array([names.index(name) for name in pair]), np.array(sample)
    target = np.array(modality) == "speech"
    draws = reference_draws(names, codes, samples, seed=seed, step=step, modality="speech")
    return choose_references(codes, samples, needs=target, candidate=~target & np.array(right), draws=draws)


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[str, str, int, bool]]:
    identities = draw(
        st.sets(
            st.tuples(
                st.sampled_from(["p", "q", "r", "é", ""]),
                st.sampled_from(["speech", "text"]),
                st.integers(-3, 9) | st.integers(-(2**63), 2**63 - 1),
            ),
            min_size=1,
            max_size=30,
        )
    )
    return [(*identity, draw(st.booleans())) for identity in sorted(identities)]


@given(batches(), st.integers(-5, 5), st.integers(0, 5))
def test_a_correct_anchor_of_the_same_pair_or_none(rows: list, seed: int, step: int) -> None:
    chosen = choose(*map(list, zip(*rows, strict=True)), seed=seed, step=step)
    for row, reference in zip(rows, chosen, strict=True):
        pool = [index for index, other in enumerate(rows) if other[0] == row[0] and other[1] == "text" and other[3]]
        if row[1] == "speech" and pool:
            assert reference in pool
        else:
            assert reference == -1


@given(batches(), st.randoms(use_true_random=False))
def test_order_does_not_matter(rows: list, shuffler: random.Random) -> None:
    shuffled = shuffler.sample(rows, len(rows))
    for_row = dict(zip(rows, choose(*map(list, zip(*rows, strict=True))), strict=True))
    again = choose(*map(list, zip(*shuffled, strict=True)))
    for row, reference in zip(shuffled, again, strict=True):
        expected = for_row[row]
        assert (reference == -1) == (expected == -1)
        assert expected == -1 or shuffled[reference] == rows[expected]


@given(batches())
def test_sharding_by_pair_does_not_matter(rows: list) -> None:
    whole = choose(*map(list, zip(*rows, strict=True)))
    for name in {row[0] for row in rows}:
        index = [position for position, row in enumerate(rows) if row[0] == name]
        shard = choose(*map(list, zip(*[rows[position] for position in index], strict=True)))
        for position, reference in zip(index, shard, strict=True):
            assert whole[position] == (-1 if reference == -1 else index[reference])


@pytest.mark.parametrize("vary", ["step", "seed", "sample", "pair"])
@pytest.mark.parametrize("pool", [2, 3, 4, 7])
def test_uniform(vary: str, pool: int) -> None:
    """Chi-square of the chosen candidate over 4,000 draws that differ in one part of the identity only."""
    picks: Counter[int] = Counter()
    count = 4000
    if vary in ("step", "seed"):
        for number in range(count):
            rows = [("q", "speech", 0, False), *[("q", "text", sample, True) for sample in range(pool)]]
            picks[int(choose(*map(list, zip(*rows, strict=True)), **{vary: number})[0]) - 1] += 1
    elif vary == "sample":
        rows = [*[("q", "text", sample, True) for sample in range(pool)]]
        rows += [("q", "speech", sample, False) for sample in range(count)]
        picks.update(choose(*map(list, zip(*rows, strict=True)))[pool:].tolist())
    else:
        codes = np.repeat(np.arange(count), pool + 1)
        sample = np.tile(np.arange(-1, pool), count)
        draws = reference_draws([f"q{n}" for n in range(count)], codes, sample, seed=0, step=0, modality="speech")
        chosen = choose_references(codes, sample, needs=sample < 0, candidate=sample >= 0, draws=draws)
        picks.update((chosen[sample < 0] - np.flatnonzero(sample < 0) - 1).tolist())
    assert sum(picks.values()) == count
    assert set(picks) <= set(range(pool))
    observed = [picks[candidate] for candidate in range(pool)]
    assert scipy.stats.chisquare(observed).pvalue > 1e-3


def test_siblings_draw_independently() -> None:
    """Two samples of a pair: the table of their joint picks shows no dependence."""
    table = np.zeros((3, 3))
    rows = [("q", "speech", 0, False), ("q", "speech", 1, False), *[("q", "text", sample, True) for sample in range(3)]]
    for step in range(3000):
        first, second = choose(*map(list, zip(*rows, strict=True)), step=step)[:2] - 2
        table[first, second] += 1
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_the_draw_depends_on_every_part_of_the_identity() -> None:
    def draw(pair: str = "q", sample: int = 0, **given: object) -> int:
        setting = {"seed": 0, "step": 0, "modality": "speech"} | given
        return int(reference_draws([pair], np.zeros(1, int), np.array([sample]), **setting)[0])

    values = [draw(), draw("r"), draw(sample=1), draw(seed=1), draw(step=1), draw(modality="image"), draw(seed=-1)]
    assert len(set(values)) == len(values)
    assert draw() == draw()


def test_the_draws_are_pinned() -> None:
    """Training resumed by a later version draws the same references: the recipe in plain integers, and its outcome."""
    names, samples = ["q1", "é"], [0, 1, -2]
    stream = xxhash.xxh3_64_intdigest(b"5 17 speech")
    expected = []
    for name in names:
        for sample in samples:
            word = (xxhash.xxh3_64_intdigest(name.encode(), stream) + (sample + 1) * 0x9E3779B97F4A7C15) % 2**64
            word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
            expected.append(word ^ word >> 31)
    pair, sample_id = np.repeat([0, 1], 3), np.tile(samples, 2)
    draws = reference_draws(names, pair, sample_id, seed=5, step=17, modality="speech")
    assert draws.tolist() == expected
    assert expected[0] == 1632808519223916122


@given(st.integers(1, 200))
def test_extreme_draws_stay_in_the_pool(pool: int) -> None:
    pair, sample = np.zeros(pool + 2, int), np.arange(-2, pool)
    draws = np.full(pool + 2, 2**64 - 1, np.uint64)
    draws[0] = 0
    chosen = choose_references(pair, sample, needs=sample < 0, candidate=sample >= 0, draws=draws)
    assert chosen[:2].tolist() == [2, pool + 1]


def test_a_hundred_thousand_rollouts() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(100_000)
    pair, sample = (order // 8), order % 8
    target, right = sample < 4, rng.random(100_000) < 0.6
    draws = reference_draws([str(n) for n in range(12_500)], pair, sample, seed=0, step=0, modality="speech")
    chosen = choose_references(pair, sample, needs=target, candidate=~target & right, draws=draws)
    has = chosen >= 0
    assert (pair[chosen[has]] == pair[has]).all()
    assert right[chosen[has]].all()
    assert not target[chosen[has]].any()
    answered = np.isin(pair, pair[~target & right])
    assert (has == (target & answered)).all()
