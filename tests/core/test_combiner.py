import torch
from hypothesis import given
from hypothesis import strategies as st

from tars_rewards.combiner import combine
from tars_rewards.protocol import TermValue

ROW = st.tuples(st.floats(0, 1.5), st.floats(-1, 1), st.booleans(), st.floats(-1, 1), st.booleans(), st.booleans())


@given(st.lists(ROW, min_size=1, max_size=12), st.floats(0, 3), st.floats(0, 3))
def test_against_the_equation_row_by_row(rows: list, alpha: float, beta: float) -> None:
    base, rep, rep_valid, beh, beh_valid, target = map(torch.tensor, zip(*rows, strict=True))
    terms = {"rep": TermValue(rep, rep_valid), "beh": TermValue(beh, beh_valid)}
    total = combine(base, terms, weights={"rep": alpha, "beh": beta}, is_target=target)
    for row, value in zip(rows, total.tolist(), strict=True):
        expected = row[0]
        if row[5]:
            expected += alpha * row[1] * row[2] + beta * row[3] * row[4]
        assert abs(value - expected) < 1e-5


def test_inputs_are_left_alone() -> None:
    base = torch.ones(2)
    term = TermValue(torch.ones(2), torch.ones(2, dtype=torch.bool))
    combine(base, {"t": term}, weights={"t": 1.0}, is_target=torch.ones(2, dtype=torch.bool))
    assert base.tolist() == [1.0, 1.0]
