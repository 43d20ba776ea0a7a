"""The comparison of training steps, on steps whose durations are known."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import paired_steps
from paired_steps import PAIRS, SAMPLES, WARM_UP, Seeds, compare, turn
from step_verl import hidden

STEPS = range(1, 2 * (WARM_UP + PAIRS) + 1)


def steps(*, ratio, first=1.0, other=False):
    """Steps of about 4 s, with TARS ``ratio`` times as long; the first of a pair ``first`` times, whichever it is."""
    noise = np.random.default_rng(0)
    rows = []
    for step in STEPS:
        of = turn(step)
        seconds = 4 * (ratio if of.tars else 1) * (first if of.first else 1) * noise.normal(1, 0.001)
        samples = [[of.pair, sample] for sample in range(SAMPLES)]
        if other and of.tars:
            samples[0] = [of.pair, 99]
        rows.append(
            {"step": step, "seconds": {"step": seconds, "gen": 1.0 + of.tars}, "completions": {"a text": samples}}
        )
    return rows


def test_every_pair_has_both_kinds_and_either_comes_first_equally_often():
    turns = [turn(step) for step in STEPS]
    assert Counter((of.pair, of.tars) for of in turns) == Counter(
        (p, t) for p in range(WARM_UP + PAIRS) for t in (0, 1)
    )
    assert sum(of.first and of.tars for of in turns[2 * WARM_UP :]) == PAIRS / 2


def test_the_ratio_is_found_whatever_the_first_step_of_a_pair_costs():
    found = compare(steps(ratio=1.03, first=1.2), rest={"generation": ["gen"]})
    assert found.ratio == pytest.approx(1.03, abs=1e-3)
    assert found.interval[0] < found.ratio < found.interval[1] < 1.032
    assert found.details["seconds"]["generation"] == {"tars": 2.0, "base": 1.0, "difference": 1.0}


def test_steps_with_other_rollouts_are_not_compared():
    with pytest.raises(RuntimeError, match=r"same rollouts, 75\.0%"):
        compare(steps(ratio=1.0, other=True), rest={})


def test_a_training_that_ended_early_is_not_compared():
    with pytest.raises(RuntimeError, match="expected 20 steps after the warm-up, got 19"):
        compare(steps(ratio=1.0)[:-1], rest={})


def test_a_prompt_has_the_same_seeds_again_and_another_clip_has_others():
    seeds, clip, other = Seeds(), np.ones(4, np.float32), np.zeros(4, np.float32)
    first, second, third = ([seeds.next([1, 2], [heard]) for _ in range(SAMPLES)] for heard in (clip, other, clip))
    assert first == third
    assert len({*first, *second}) == 2 * SAMPLES


def test_embedding_after_the_last_completion_is_not_hidden():
    rows = [{"step": step, "ended": 10.0 * step} for step in STEPS]
    generation = [{"begun": 10.0 * step - 9, "ended": 10.0 * step - 5} for step in STEPS]
    embeddings = [
        {"begun": 10.0 * step - start, "ended": 10.0 * step - start + 1, "processor": 0.5}
        for step in STEPS
        if turn(step).tars
        for start in (8, 5.25)
    ]
    spans = hidden(rows, embeddings, generation)
    assert len(spans) == PAIRS
    for span in spans:
        assert span == pytest.approx({"generation": 4, "embedding": 2, "hidden": 1.25, "processor": 1, "batches": 2})


def test_an_interval_holds_the_median_of_what_it_is_of():
    values = np.random.default_rng(1).normal(90, 2, 40)
    middle, (low, high) = paired_steps.median(values)
    assert middle == pytest.approx(np.median(values))
    assert 88 < low < middle < high < 92
