"""Embedders and embeddings that are not what they should be: a sentence, never a wrong number."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.embedding import TextEmbedder
from tars_rewards.errors import EmbedderFailedError, EmbeddingError
from tars_rewards.vectors import as_vector, as_vectors


def embedder_of(encode: object, **attributes: object) -> SimpleNamespace:
    return SimpleNamespace(encode=encode, max_tokens=math.inf, **attributes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([[1.0], [1.0, 2.0]], "is a list that makes no array of real numbers .*inhomogeneous"),
        (["a", "b"], "is a list that makes no array of real numbers .*values are <U1"),
        ([["1", "2"], ["3", "4"]], "values are <U1"),
        ({"a": [1.0]}, "is a dict that makes no array"),
        ((row for row in np.ones((2, 2))), "is a generator that makes no array"),
        (np.ones((2, 2)) * 1j, "is a ndarray that .*values are complex128"),
        (torch.ones(2, 2) * 1j, "is a Tensor that .*values are torch.complex64"),
        ([torch.ones(2), torch.ones(3)], "is a list that makes no array"),
        (None, "expected"),
        (object(), "is a object that makes no array"),
        (np.full((2, 2), 1e300), "NaN or inf in row 0 of 2"),
    ],
)
def test_what_is_no_array_of_real_numbers(returned: object, message: str) -> None:
    with pytest.raises(EmbeddingError, match=f"what the embedder returned.*{message}"):
        TextEmbedder(embedder_of(lambda texts: returned)).encode(["a", "b"])


@pytest.mark.parametrize(
    "returned",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        ((1, 2), (3, 4)),
        [np.array([1.0, 2.0]), np.array([3.0, 4.0])],
        [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], dtype=torch.bfloat16)],
        np.array([[1, 2], [3, 4]]),
        np.array([[1.0, 2.0], [3.0, 4.0]], ">f4"),
        np.array([[2.0, 1.0], [4.0, 3.0]])[:, ::-1],
        np.array([[1.0, 2.0], [3.0, 4.0]], object),
    ],
)
def test_what_is_one(returned: object) -> None:
    vectors = as_vectors(returned, 2, "it")
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("size", [None, 0, -1, 2.0, "8"])
def test_batch_sizes_that_are_none(size: object) -> None:
    embedder = embedder_of(lambda texts: np.ones((len(texts), 2)), batch_size=size)
    with pytest.raises(EmbeddingError, match=r"batch_size is .*; expected a positive integer.* without .* it is 32"):
        TextEmbedder(embedder).encode(["a"])


def test_an_embedding_handed_in_as_a_list() -> None:
    rollouts = [
        Rollout("q", "speech", completion="x", correct=True, embedding=[3.0, 4.0]),
        Rollout("q", "text", completion="y", correct=True, embedding=(4, 3)),
    ]
    assert TARSReward(TARSConfig(alpha=0))(rollouts).components["behavior"].tolist() == pytest.approx([0.96, 0.0])


@pytest.mark.parametrize("given", ["x", [[1.0, 2.0]], [], 1.0, [1.0, "x"], {"a": 1}, np.ones(2) * 1j])
def test_one_embedding_that_is_none(given: object) -> None:
    with pytest.raises(EmbeddingError, match="rollout 3"):
        as_vector(given, "rollout 3")


class OneBuffer:
    """Writes every batch into the same memory, as a fast embedder may."""

    max_tokens = math.inf

    def __init__(self, kind: object, batch_size: int) -> None:
        self.kind, self.batch_size, self.buffer = kind, batch_size, np.empty((batch_size, 2), np.float32)

    def encode(self, texts: list[str]) -> object:
        for row, text in zip(self.buffer, texts, strict=False):
            row[:] = [len(text), 1.0]
        return self.kind(self.buffer)[: len(texts)]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_an_embedder_may_use_its_buffer_again(kind: object, batch_size: int) -> None:
    texts = TextEmbedder(OneBuffer(kind, batch_size), memory=10)
    for some in (["a", "bb", "ccc"], ["dddd"], ["a", "bb", "ccc", "dddd"]):
        vectors = texts.encode(some).vectors
        assert vectors[:, 0].tolist() == [len(text) for text in some]
        vectors[:] = -1  # nor does the caller's writing reach what is remembered


def test_what_is_remembered_does_not_keep_its_whole_batch() -> None:
    texts = TextEmbedder(embedder_of(lambda some: np.ones((len(some), 100), np.float32)), memory=1)
    texts.encode([str(number) for number in range(32)])
    (entry,) = texts._memory.values()
    assert entry.vector.base is None


def test_batches_that_are_done_are_kept_when_a_later_one_fails() -> None:
    calls: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.extend(texts)
        if calls.count("ccc") == 1 and texts == ["ccc"]:
            raise ConnectionError("endpoint is down")
        return np.ones((len(texts), 2))

    texts = TextEmbedder(embedder_of(encode, batch_size=1), memory=10)
    with pytest.raises(
        EmbedderFailedError, match=r"of 1 texts .*got ConnectionError: endpoint is down; .*'invalid'"
    ) as caught:
        texts.encode(["a", "bb", "ccc", "dddd"])
    assert type(caught.value.__cause__) is ConnectionError
    texts.encode(["a", "bb", "ccc", "dddd"])
    assert calls == ["a", "bb", "ccc", "ccc", "dddd"]
