"""A rank's stretch of packed rows, and means over whole completions out of means over their parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tars_rewards.capture import capture_hidden_states
from tars_rewards_verl.sequence_parallel import Stretch


class Layer(torch.nn.Module):
    def forward(self, hidden):
        return hidden


class Decoder(torch.nn.Module):
    """A decoder whose layers hand on what they get."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(), Layer()])

    def forward(self, hidden):
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def pooled(hidden, mask, offsets):
    model = Decoder()
    with capture_hidden_states(model, mask, cu_seqlens=offsets, layers=model.layers) as captured:
        model(hidden[None])
    return captured


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 5))
def test_the_ranks_parts_add_up_to_what_one_rank_has(rows, size):
    mask = torch.tensor([token for row in rows for token in row])
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    total = -(-len(mask) // size) * size
    hidden = torch.randn(total, 4, generator=torch.Generator().manual_seed(0))
    whole = pooled(hidden[: len(mask)], mask, offsets)
    stretches = [Stretch.cut(mask, offsets, rank=rank, size=size) for rank in range(size)]
    assert torch.equal(torch.cat([each.mask for each in stretches])[: len(mask)], mask)
    found = []
    for each, tokens in zip(stretches, hidden.chunk(size), strict=True):
        found.append(each.share[:, None, None] * pooled(tokens, each.mask, each.offsets).pooled)
    torch.testing.assert_close(sum(found), whole.pooled, rtol=0, atol=1e-6)
    torch.testing.assert_close(sum(each.share for each in stretches), whole.valid.float())


def test_the_reduction_weighs_and_sums_over_the_group(monkeypatch):
    asked = []

    def all_reduce(tensor, group):
        asked.append(group)
        tensor += 1.0

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    stretch = Stretch.cut(torch.tensor([False, True, True, True]), torch.tensor([0, 3, 4]), rank=0, size=2)
    assert stretch.share.tolist() == pytest.approx([0.5, 0.0])
    means = stretch.pooled_over("group", torch.full((2, 1, 3), 4.0))
    assert asked == ["group"]
    assert means[:, 0].tolist() == [[3.0] * 3, [1.0] * 3]
