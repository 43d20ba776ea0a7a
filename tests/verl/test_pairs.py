import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from tars_rewards.errors import IncompletePairError
from tars_rewards.integration.pairs import find_pairs
from tars_rewards_verl.pairs import PairSampler

ROLES = {"target_modality": "speech", "anchor_modality": "text"}


def test_pairs_are_found_wherever_their_rows_are():
    pairs = find_pairs(["a", "b", "a", "b"], ["text", "speech", "speech", "text"], **ROLES)
    assert pairs == [(2, 0), (1, 3)]


@pytest.mark.parametrize(
    ("pair_ids", "modalities"),
    [
        (["a"], ["speech"]),
        (["a", "a"], ["speech", "speech"]),
        (["a", "a", "a"], ["speech", "text", "text"]),
        (["a", "a"], ["speech", "video"]),
    ],
)
def test_an_incomplete_pair_is_named(pair_ids, modalities):
    with pytest.raises(IncompletePairError, match="pair 'a'"):
        find_pairs(pair_ids, modalities, **ROLES)


class Rows(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index


def loader(pairs, batch, *, shuffle=True, seed=0):
    sampler = PairSampler(pairs, shuffle=shuffle, seed=seed)
    return StatefulDataLoader(Rows(2 * len(pairs)), batch_size=batch, drop_last=True, collate_fn=list, sampler=sampler)


def take(data, n):
    """As verl's trainer draws batches: a new iterator at the end of every epoch."""
    iterator, out = iter(data), []
    while len(out) < n:
        try:
            out.append(next(iterator))
        except StopIteration:
            iterator = iter(data)
    return out


@given(n=st.integers(3, 12), pairs_per_batch=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_batch_holds_whole_pairs_and_every_epoch_every_pair_once(n, pairs_per_batch, seed):
    pairs = [(2 * i + 1, 2 * i) for i in range(n)]
    partner = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    batches = take(loader(pairs, 2 * pairs_per_batch, seed=seed), 3 * (n // pairs_per_batch))
    for batch in batches:
        assert all(partner[row] in batch for row in batch)
    epoch = [row for batch in batches[: n // pairs_per_batch] for row in batch]
    assert len(set(epoch)) == len(epoch)


def test_order_depends_on_seed_and_epoch_and_not_on_shuffle_off():
    pairs = [(2 * i, 2 * i + 1) for i in range(20)]
    first, second = PairSampler(pairs, shuffle=True, seed=1), PairSampler(pairs, shuffle=True, seed=1)
    assert list(first) == list(second)
    assert list(first) == list(second) != PairSampler(pairs, shuffle=True, seed=1).order(0)
    assert list(PairSampler(pairs, shuffle=True, seed=2)) != first.order(0)
    assert list(PairSampler(pairs, shuffle=False, seed=2)) == list(range(40))


@pytest.mark.parametrize("done", [0, 1, 3, 4, 5, 7, 9])
def test_a_resumed_loader_continues_with_the_order_it_would_have_had(done):
    pairs = [(2 * i, 2 * i + 1) for i in range(8)]
    expected = take(loader(pairs, 4), 14)
    before = loader(pairs, 4)
    iterator = iter(before)
    for _ in range(done):
        try:
            next(iterator)
        except StopIteration:
            iterator = iter(before)
            next(iterator)
    resumed = loader(pairs, 4)
    resumed.load_state_dict(before.state_dict())
    assert take(resumed, 14 - done) == expected[done:]
