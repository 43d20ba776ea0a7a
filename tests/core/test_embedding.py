import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tars_rewards import TARSConfig, TARSReward
from tars_rewards.cache import EmbeddingStore
from tars_rewards.embedding import SentenceTransformerEmbedder, TextEmbedder, as_vectors
from tars_rewards.errors import EmbeddingError, EmbeddingWindowWarning


class Windowed:
    """Counts words as tokens; five fit."""

    max_tokens = 5

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 2))

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def test_distinct_texts_once_sorted_in_batches(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    embedder.batch_size = 3
    texts = ["ccc", "a", "bb", "a", "dddd", "ccc", "eeeee", "a"]
    vectors, over = TextEmbedder(embedder).encode(texts)
    assert embedder.calls == [["a", "bb", "ccc"], ["dddd", "eeeee"]]
    assert over.tolist() == [False] * 8
    np.testing.assert_allclose(vectors, tools.HashEmbedder().encode(texts), rtol=1e-6)
    assert vectors.dtype == np.float32


def test_batches_of_32_by_default(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    TextEmbedder(embedder).encode([str(number) for number in range(70)])
    assert [len(call) for call in embedder.calls] == [32, 32, 6]


def test_memory_drops_the_least_recently_used(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    texts = TextEmbedder(embedder, memory=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        texts.encode([text])
    assert embedder.calls == [["a"], ["b"], ["c"], ["b"]]


def test_without_memory_nothing_is_kept(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    texts = TextEmbedder(embedder, memory=0)
    texts.encode(["a"])
    texts.encode(["a"])
    assert embedder.calls == [["a"], ["a"]]


def test_more_texts_than_memory_in_one_call(tools: SimpleNamespace) -> None:
    texts = [str(number) for number in range(9)]
    vectors, _ = TextEmbedder(tools.HashEmbedder(), memory=2).encode(texts)
    np.testing.assert_allclose(vectors, tools.HashEmbedder().encode(texts), rtol=1e-6)


def test_texts_over_the_window_are_counted_every_time_and_warned_of_once() -> None:
    texts = TextEmbedder(Windowed(), memory=10)
    long = "one two three four five six"
    with pytest.warns(EmbeddingWindowWarning, match="2 of 3 texts are longer than the embedder's window of 5 tokens"):
        flags = texts.encode([long, "short", long + " seven", long]).over_window
    assert flags.tolist() == [True, False, True, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert texts.encode([long]).over_window.tolist() == [True]
    assert texts.over_window(["a b c d e", long, "a b c d e f"]).tolist() == [False, True, True]


def test_texts_over_the_window_are_counted_from_disk_too(tmp_path) -> None:
    long = "one two three four five six"
    with pytest.warns(EmbeddingWindowWarning):
        TextEmbedder(Windowed(), store=EmbeddingStore(tmp_path, model_id="w")).encode([long])
    with pytest.warns(EmbeddingWindowWarning):
        again = TextEmbedder(Windowed(), store=EmbeddingStore(tmp_path, model_id="w")).encode([long])
    assert again.over_window.tolist() == [True]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.ones((1, 4)), r"shape \(1, 4\); expected \[2, dim\]"),
        (np.ones((3, 4)), r"shape \(3, 4\)"),
        (np.ones(2), r"shape \(2,\)"),
        (np.ones((2, 0)), r"shape \(2, 0\)"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "NaN or inf in row 1 of 2"),
        (torch.tensor([[1.0, float("inf")], [1.0, 1.0]]), "NaN or inf in row 0 of 2"),
        (np.full((2, 2), 1e300), "NaN or inf"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_embedders(returned: object, message: str) -> None:
    embedder = SimpleNamespace(encode=lambda texts: returned)
    with pytest.raises(EmbeddingError, match=message):
        TextEmbedder(embedder).encode(["a", "b"])


def test_dimensions_that_change() -> None:
    embedder = SimpleNamespace(encode=lambda texts: np.ones((len(texts), len(texts))), batch_size=2)
    with pytest.raises(EmbeddingError, match=r"one dimension, got \[1, 2\]"):
        TextEmbedder(embedder).encode(["a", "b", "c"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_torch_embeddings_of_any_dtype(dtype: torch.dtype) -> None:
    vectors = as_vectors(torch.ones(2, 3, dtype=dtype, requires_grad=True), 2, "it")
    assert vectors.dtype == np.float32


def test_threads_take_turns(tools: SimpleNamespace) -> None:
    embedder = tools.HashEmbedder()
    texts = TextEmbedder(embedder, memory=100)
    threads = [threading.Thread(target=texts.encode, args=([str(n) for n in range(50)],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(call) for call in embedder.calls) == 50


def test_asking_about_a_known_text_does_not_wait_for_the_embedder() -> None:
    """A framework asks on its event loop while a batch is embedded in a thread."""
    started, release = threading.Event(), threading.Event()

    class Slow(Windowed):
        def encode(self, texts: list[str]) -> np.ndarray:
            if "slow" in texts:
                started.set()
                assert release.wait(30)
            return super().encode(texts)

    texts = TextEmbedder(Slow(), memory=10)
    texts.encode(["known"])
    thread = threading.Thread(target=texts.encode, args=(["slow"],))
    thread.start()
    asked: list[np.ndarray] = []
    asking = threading.Thread(target=lambda: asked.append(texts.over_window(["known"])), daemon=True)
    assert started.wait(30)
    asking.start()
    asking.join(5)
    release.set()
    thread.join()
    assert [flags.tolist() for flags in asked] == [[False]]


@pytest.fixture(scope="module")
def minilm(minilm_dir: str) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(minilm_dir, device="cpu")


def test_real_model_equals_sentence_transformers(minilm: SentenceTransformerEmbedder, minilm_dir: str) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["The answer is B.", "It rained all day, so the match was off.", "The answer is B.", "two"]
    plain = SentenceTransformer(minilm_dir, device="cpu")
    expected = np.stack([plain.encode(text) for text in texts])
    vectors, over = TextEmbedder(minilm).encode(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert over.tolist() == [False] * 4


def test_real_model_tells_its_window(minilm: SentenceTransformerEmbedder) -> None:
    """256 tokens with the two special ones: a text of 254 words fits, one of 255 does not, and its end is lost."""
    assert minilm.max_tokens == 256
    fits, over = "cat " * 254, "cat " * 255
    assert minilm.count_tokens([fits, over]) == [256, 257]
    with pytest.warns(EmbeddingWindowWarning):
        assert TextEmbedder(minilm).encode([fits, over]).over_window.tolist() == [False, True]
    first, second = minilm.encode(["cat " * 300 + "yes", "cat " * 300 + "no"])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_model_id_tells_directories_apart_by_content(minilm: SentenceTransformerEmbedder, tmp_path) -> None:
    from tars_rewards.embedding import _model_id

    (tmp_path / "weights").write_text("1")
    first = _model_id(str(tmp_path))
    assert first == _model_id(str(tmp_path))
    (tmp_path / "weights").write_text("22")
    assert _model_id(str(tmp_path)) not in (first, minilm.model_id)
    assert _model_id("Qwen/Qwen3-Embedding-0.6B") == "Qwen/Qwen3-Embedding-0.6B"


def test_precision_of_the_weights(minilm: SentenceTransformerEmbedder, minilm_dir: str, tmp_path) -> None:
    """Vectors are alike and float32 in any case; the id that an on-disk cache goes by tells the precisions apart."""
    texts = ["The answer is B.", "It rained all day, so the match was off.", "cat " * 250]
    exact = TextEmbedder(minilm).encode(texts).vectors
    assert next(minilm._model.parameters()).dtype == torch.float32
    made = {}
    for dtype, error in (("bfloat16", 1e-2), ("float16", 1e-3)):
        config = TARSConfig(embedder=minilm_dir, embedder_device="cpu", embedder_dtype=dtype, embedding_cache=tmp_path)
        made[dtype] = TARSReward(config)
        vectors = made[dtype].embed(texts)
        assert next(made[dtype].embedder._model.parameters()).dtype == getattr(torch, dtype)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, exact, atol=error)
        assert np.abs(vectors - exact).max() > 1e-6
    plain = TARSReward(TARSConfig(embedder=minilm_dir, embedder_device="cpu", embedding_cache=tmp_path))
    np.testing.assert_array_equal(plain.embed(texts), exact)
    ids = [minilm.model_id, *(reward.embedder.model_id for reward in made.values())]
    assert len(set(ids)) == 3
    assert plain.embedder.model_id == minilm.model_id
    assert SentenceTransformerEmbedder(minilm_dir, device="cpu", dtype="float32").model_id == minilm.model_id


def test_missing_package_names_the_extra() -> None:
    """In a fresh interpreter that cannot find sentence-transformers."""
    code = """
import sys
sys.modules["sentence_transformers"] = None
from tars_rewards import TARSReward
from tars_rewards.errors import MissingDependencyError
try:
    TARSReward().embedder
except MissingDependencyError as error:
    print(isinstance(error, ImportError), error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True")
    assert "pip install tars-rewards[embeddings]" in done.stdout
