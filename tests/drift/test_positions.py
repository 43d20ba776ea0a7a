"""Places along a completion."""

import numpy as np

from tars_rewards.drift.positions import by_tenths, by_tokens, stacked


def column(*values):
    return np.array(values, float)[:, None]


def test_runs_of_tokens():
    values = np.arange(14.0).reshape(7, 2)
    assert by_tokens(values, 3).tolist() == [[2, 3], [8, 9], [12, 13]]  # the last run has one token
    assert by_tokens(values, 7).tolist() == [values.mean(0).tolist()]
    assert by_tokens(values, 1).tolist() == values.tolist()


def test_tokens_without_a_value_do_not_count():
    assert by_tokens(column(1, np.nan, 3, np.nan), 2)[:, 0].tolist() == [1, 3]
    assert np.isnan(by_tokens(column(1, 2, np.nan), 2)[1, 0])


def test_tenths():
    assert by_tenths(column(*range(10)))[:, 0].tolist() == list(range(10))
    assert by_tenths(column(*range(20)))[:, 0].tolist() == [0.5 + 2 * tenth for tenth in range(10)]
    # 12 tokens: token t in tenth floor(10 t / 12), so that the tenths 0 and 5 have two of them.
    assert by_tenths(column(*range(12)))[:, 0].tolist() == [0.5, 2, 3, 4, 5, 6.5, 8, 9, 10, 11]


def test_a_short_completion_leaves_tenths_empty():
    found = by_tenths(column(7, 8, 9))[:, 0]
    assert {place: value for place, value in enumerate(found) if not np.isnan(value)} == {0: 7, 3: 8, 6: 9}


def test_completions_of_different_length_in_one_array():
    whole = stacked([column(1), column(2, 3)])
    assert whole.shape == (2, 2, 1)
    assert np.isnan(whole[0, 1, 0])
    assert whole[1, :, 0].tolist() == [2, 3]
