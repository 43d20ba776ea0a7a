"""A text longer than the embedder's window is noticed for every kind of embedder, or it is said that it cannot be."""

import math
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.embedding import SentenceTransformerEmbedder, TextEmbedder
from tars_rewards.errors import EmbeddingWindowWarning
from tars_rewards.window import Window

FITS, OVER = "cat " * 254, "cat " * 255  # 256 tokens fit MiniLM, two of them special


def ones(texts: list[str]) -> np.ndarray:
    return np.ones((len(texts), 2))


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.fixture
def model(minilm_dir: str) -> Iterator[object]:
    """A plain SentenceTransformer."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(minilm_dir, device="cpu")


def test_a_plain_sentence_transformer_is_counted_and_warned_of(model: object) -> None:
    rollouts = [Rollout("q", m, completion=f"{OVER}{m}", correct=True) for m in ("speech", "text")]
    with pytest.warns(EmbeddingWindowWarning, match="2 of 2 texts are longer than the embedder's window of 256 tokens"):
        metrics = TARSReward(TARSConfig(alpha=0), embedder=model)(rollouts).metrics
    assert metrics["tars/behavior/over_window"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TextEmbedder(model).encode([FITS]).over_window.tolist() == [False]


def test_the_default_prompt_of_a_plain_model_takes_its_place_in_the_window(model: object) -> None:
    model.prompts, model.default_prompt_name = {"query": "find: "}, "query"
    assert Window(model).sizes([FITS, "cat"]) == [(256, True), (5, False)]


def test_a_window_that_is_changed_later(model: object) -> None:
    texts = TextEmbedder(model)
    assert texts.over_window(["cat " * 20]).tolist() == [False]
    model.max_seq_length = 8
    assert texts.over_window(["cat " * 20]).tolist() == [True]


def test_default_prompts_are_not_applied_by_the_own_embedder(minilm_dir: str) -> None:
    embedder = SentenceTransformerEmbedder(minilm_dir, device="cpu")
    expected = embedder.encode(["cat"])
    embedder._model.prompts, embedder._model.default_prompt_name = {"query": "find the opposite of: "}, "query"
    np.testing.assert_array_equal(embedder.encode(["cat"]), expected)
    assert embedder.count_tokens(["cat"]) == [3]
    assert np.abs(embedder._model.encode(["cat"]) - expected).max() > 0.01, (
        "a prompt without effect would prove nothing"
    )


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"max_tokens": 4},
        {"max_tokens": None, "count_tokens": words},
        {"count_tokens": words},
        {"max_seq_length": 4},
        {"max_seq_length": None, "tokenizer": words},
        {"max_seq_length": 4, "tokenizer": object()},
        {"max_tokens": 4, "tokenizer": words},
    ],
)
def test_a_window_that_is_not_told_is_warned_of_once_and_gives_no_metric(told: dict) -> None:
    reward = TARSReward(TARSConfig(alpha=0), embedder=SimpleNamespace(encode=ones, **told))
    rollouts = [Rollout("q", m, completion=f"a b c d e {m}", correct=True) for m in ("speech", "text")]
    with pytest.warns(EmbeddingWindowWarning, match="does not tell its window.* or max_tokens = math.inf"):
        metrics = reward(rollouts).metrics
    assert "tars/behavior/over_window" not in metrics
    assert reward.over_window(["a"]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reward([Rollout("q", m, completion=f"another {m}", correct=True) for m in ("speech", "text")])


@pytest.mark.parametrize(
    ("told", "over"),
    [
        ({"max_tokens": 2, "count_tokens": words}, [False, True]),
        ({"max_tokens": math.inf}, [False, False]),
        ({"max_seq_length": math.inf, "tokenizer": object()}, [False, False]),  # as of static embeddings
    ],
)
def test_windows_that_are_told(told: dict, over: list[bool]) -> None:
    window = Window(SimpleNamespace(**told))
    assert window.told
    assert [size.over for size in window.sizes(["a b", "a b c"])] == over
    assert window.sizes([]) == []


def test_batches_are_of_like_length_in_tokens_where_those_are_counted() -> None:
    """Padding is in tokens, and what is over the window is read as far as the window only."""
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        return ones(texts)

    embedder = SimpleNamespace(encode=encode, max_tokens=3, count_tokens=words, batch_size=2)
    texts = ["antidisestablishmentarianism", "a b c d e", "a b", "extraordinarily longish thing here"]
    with pytest.warns(EmbeddingWindowWarning):
        assert TextEmbedder(embedder).encode(texts).over_window.tolist() == [False, True, False, True]
    assert calls == [["antidisestablishmentarianism", "a b"], ["a b c d e", "extraordinarily longish thing here"]]


def test_tokens_of_very_many_texts_are_counted_in_blocks() -> None:
    blocks: list[int] = []

    def count(texts: list[str]) -> list[int]:
        blocks.append(len(texts))
        return words(texts)

    texts = ["a " * (number % 5) for number in range(3000)]
    sizes = Window(SimpleNamespace(max_tokens=3, count_tokens=count)).sizes(texts)
    assert blocks == [1024, 1024, 952]
    assert [size.over for size in sizes] == [number % 5 == 4 for number in range(3000)]
