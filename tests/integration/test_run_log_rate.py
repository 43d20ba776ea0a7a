"""Which questions a run log keeps."""

import pytest

from tars_rewards.integration.run_log import chosen


def test_the_rate_is_the_share_of_questions_and_each_step_has_others():
    names = [f"q{number}" for number in range(4000)]
    for rate in (0.05, 0.5):
        kept = [{name for name in names if chosen(name, seed=0, step=step, rate=rate)} for step in (1, 2)]
        assert [len(each) / len(names) for each in kept] == pytest.approx([rate, rate], abs=0.025)
        assert len(kept[0] & kept[1]) / len(names) == pytest.approx(rate**2, abs=0.02)
    assert all(chosen(name, seed=0, step=1, rate=1) for name in names)
    assert {chosen("q1", seed=seed, step=1, rate=0.5) for seed in range(20)} == {True, False}
