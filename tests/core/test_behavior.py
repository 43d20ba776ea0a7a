from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial import distance

from tars_rewards import Rollout, TARSConfig
from tars_rewards.batch import RolloutBatch
from tars_rewards.behavior import behavior_term
from tars_rewards.errors import EmbeddingError


def batch_of(*rollouts: Rollout) -> RolloutBatch:
    return RolloutBatch.from_rollouts(rollouts, TARSConfig())


def never(texts: list[str]) -> np.ndarray:
    raise AssertionError(f"asked to embed {texts}")


def test_against_scipy(tools: SimpleNamespace) -> None:
    rollouts = tools.make_batch(3)
    reference = [(index // 8) * 8 + 4 + index % 3 if index % 8 < 4 else -1 for index in range(len(rollouts))]
    embedder = tools.HashEmbedder()
    term = behavior_term(batch_of(*rollouts), torch.tensor(reference), embed=embedder.encode)
    for index, other in enumerate(reference):
        expected = 0.0
        if other >= 0:
            first, second = tools.HashEmbedder().encode([rollouts[index].completion, rollouts[other].completion])
            expected = 1 - distance.cosine(first, second)
        assert term.values[index].item() == pytest.approx(expected, abs=1e-6)
        assert term.valid[index].item() == (other >= 0)


def test_only_what_is_compared_is_embedded(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    batch = batch_of(
        Rollout("q", "speech", completion="one"),
        Rollout("q", "speech", completion="two"),
        Rollout("q", "text", completion="three"),
        Rollout("q", "text", completion="four"),
    )
    behavior_term(batch, torch.tensor([3, -1, -1, -1]), embed=embedder.encode)
    assert embedder.calls == [["one", "four"]]
    behavior_term(batch, torch.tensor([-1] * 4), embed=never)


def test_given_embeddings_replace_the_embedder() -> None:
    batch = batch_of(
        Rollout("q", "speech", completion="x", embedding=np.array([3.0, 4.0])),
        Rollout("q", "text", completion="y", embedding=torch.tensor([4.0, 3.0], dtype=torch.bfloat16)),
    )
    assert behavior_term(batch, torch.tensor([1, -1]), embed=never).values[0].item() == pytest.approx(0.96)


def test_given_and_computed_embeddings_mix() -> None:
    batch = batch_of(
        Rollout("q", "speech", completion="x", embedding=np.array([3.0, 4.0])), Rollout("q", "text", completion="y")
    )
    term = behavior_term(batch, torch.tensor([1, -1]), embed=lambda texts: np.array([[4.0, 3.0]], np.float32))
    assert term.values[0].item() == pytest.approx(0.96)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (np.array([1.0, np.nan]), r"embedding of rollout 1 \(pair 'q', text, sample 0\) holds NaN or inf"),
        (np.array([1.0, np.inf]), "NaN or inf"),
        (np.ones(3), "has an embedding of 3 values, but rollout 0 .* one of 2"),
        (np.ones((1, 2)), r"shape \(1, 2\); expected \[dim\]"),
        (np.ones(0), "expected"),
    ],
)
def test_bad_given_embeddings(embedding: np.ndarray, message: str) -> None:
    batch = batch_of(
        Rollout("q", "speech", completion="x", embedding=np.ones(2)),
        Rollout("q", "text", completion="y", embedding=embedding),
    )
    with pytest.raises(EmbeddingError, match=message):
        behavior_term(batch, torch.tensor([1, -1]), embed=never)


def test_zero_embedding_is_absent_not_nan() -> None:
    batch = batch_of(
        Rollout("q", "speech", completion="x", embedding=np.zeros(2)),
        Rollout("q", "text", completion="y", embedding=np.ones(2)),
    )
    term = behavior_term(batch, torch.tensor([1, -1]), embed=never)
    assert term.values.tolist() == [0.0, 0.0]
    assert term.valid.tolist() == [False, False]


def test_blanks_are_nothing_to_embed() -> None:
    batch = batch_of(Rollout("q", "speech", completion=" \n"), Rollout("q", "text", completion="four"))
    term = behavior_term(batch, torch.tensor([1, -1]), embed=never)
    assert not term.valid.any()


def test_tags_can_be_stripped(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    batch = batch_of(
        Rollout("q", "speech", completion="<think>so</think>"),
        Rollout("q", "speech", completion="<think></think>"),
        Rollout("q", "text", completion="well"),
    )
    term = behavior_term(batch, torch.tensor([2, 2, -1]), embed=embedder.encode, strip=True)
    assert embedder.calls == [["so", "well"]]
    assert term.valid.tolist() == [True, False, False]  # nothing was said in the second
