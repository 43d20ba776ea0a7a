"""Features of several clips together, and the masks by which the encoder cache tells padded clips apart."""

import torch

from tars_rewards.speech.encoder_cache import _PaddedBatch
from tars_rewards.speech.processors import join_features


def test_features_of_different_lengths_are_padded_to_the_longest():
    short = {"input_features": torch.ones(1, 2, 3), "feature_attention_mask": torch.ones(1, 3, dtype=torch.long)}
    long = {"input_features": torch.ones(2, 2, 5), "feature_attention_mask": torch.ones(2, 5, dtype=torch.long)}
    joined = join_features([short, long])
    assert joined["input_features"].shape == (3, 2, 5)
    assert joined["feature_attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1] * 5]
    assert joined["input_features"][0, :, 3:].abs().sum() == 0
    assert torch.equal(join_features([short])["input_features"], short["input_features"])


def test_clips_that_differ_by_their_mask_alone_differ_whatever_the_attention():
    features = torch.zeros(2, 4, 8)  # the same samples
    rows = torch.tensor([[1, 1, 0], [1, 1, 1]])
    square = rows[:, None, None, :].expand(2, 1, 3, 3)
    for mask in (rows, square):  # flash attention's, and that of the others
        batch = _PaddedBatch(features, mask)
        (first, first_mask), (second, second_mask) = batch.contents
        assert torch.equal(first, second)
        assert not torch.equal(first_mask, second_mask)
        assert torch.equal(batch.select([1])[1], mask[[1]])
    assert _PaddedBatch(features, None).contents[0][0].shape == (4, 8)
