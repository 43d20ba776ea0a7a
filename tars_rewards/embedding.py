"""Sentence embeddings: each distinct text once, in small batches of like length, remembered in memory and on disk."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from tars_rewards.errors import (
    ConfigError,
    EmbedderFailedError,
    EmbeddingError,
    EmbeddingWindowWarning,
    MissingDependencyError,
)
from tars_rewards.vectors import as_vectors
from tars_rewards.window import Window, count_tokens

if TYPE_CHECKING:
    import numpy.typing as npt

    from tars_rewards.cache import EmbeddingStore
    from tars_rewards.config import TARSConfig
    from tars_rewards.protocol import Embedder

_BATCH = 32


class Embeddings(NamedTuple):
    """Vectors of some texts, and which texts were longer than the embedder's window."""

    vectors: npt.NDArray[np.float32]  #: [texts, dim]
    over_window: npt.NDArray[np.bool_] | None  #: [texts]; None where the embedder does not tell its window


class _Entry(NamedTuple):
    vector: npt.NDArray[np.float32]
    over_window: bool


class TextEmbedder:
    """Wraps an embedder: de-duplicates, sorts by length, batches, remembers, and checks what comes back.

    Safe to use from several threads: they take turns.

    Args:
        embedder: Does the work, `batch_size` texts a call (its attribute, at least 1; 32 if it has none). Where it tells
            no window (see `Window`), a warning says once that texts may be cut unnoticed.
        memory: Number of embeddings kept in memory, least recently used dropped first.
        store: Embeddings kept on disk, or None.
    """

    def __init__(self, embedder: Embedder, *, memory: int = 0, store: EmbeddingStore | None = None) -> None:
        self._embedder = embedder
        self._memory: OrderedDict[str, _Entry] = OrderedDict()
        self._memory_size = memory
        self._store = store
        self._lock = threading.Lock()
        self._warned = False
        self._window = Window(embedder)

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts, each distinct one once. Batches that are done are remembered even if a later one fails.

        Args:
            texts: At least one text.

        Returns:
            float32 [texts, dim] in the order of the texts, and which of them exceed the embedder's window.

        Raises:
            EmbedderFailedError: The embedder raised, or returned the wrong count or shape, or values that are not finite.
            EmbeddingError: Its `batch_size` is no positive integer, or vectors differ in dimension.
        """
        size = self._batch_size
        with self._lock:
            found = self._lookup(dict.fromkeys(texts))
            missing = [text for text in dict.fromkeys(texts) if text not in found]
            sizes = dict(zip(missing, self._window.sizes(missing), strict=True))
            missing.sort(key=lambda text: (sizes[text].read, text))
            try:
                for start in range(0, len(missing), size):
                    batch = missing[start : start + size]
                    found.update(self._embed(batch, [sizes[text].over for text in batch]))
            finally:
                self._remember(found)
        entries = [found[text] for text in texts]
        dimensions = sorted({entry.vector.size for entry in entries})
        if len(dimensions) > 1:
            raise EmbeddingError(
                f"expected embeddings of one dimension, got {dimensions}; if an on-disk cache is in use, give another "
                "directory, or another model_id to an embedder that has changed"
            )
        self._warn_once(found.values())
        flags = np.array([entry.over_window for entry in entries]) if self._tells_window else None
        return Embeddings(np.stack([entry.vector for entry in entries]), flags)

    def over_window(self, texts: Sequence[str]) -> npt.NDArray[np.bool_] | None:
        """Which texts are longer than the embedder's window; None where the embedder does not tell its window."""
        if not self._tells_window:
            return None
        # Without the lock: a text already embedded must not wait for the batch that is being embedded.
        over = {text: entry.over_window for text in texts if (entry := self._memory.get(text)) is not None}
        unknown = [text for text in dict.fromkeys(texts) if text not in over]
        if unknown:
            with self._lock:
                over.update(zip(unknown, (size.over for size in self._window.sizes(unknown)), strict=True))
        return np.array([over[text] for text in texts], bool)

    @property
    def _tells_window(self) -> bool:
        return self._window.told

    @property
    def _batch_size(self) -> int:
        size = getattr(self._embedder, "batch_size", _BATCH)
        if not isinstance(size, Integral) or size < 1:
            raise EmbeddingError(
                f"the embedder's batch_size is {size!r}; expected a positive integer: the number of texts that encode() is "
                f"given at once; without the attribute it is {_BATCH}"
            )
        return int(size)

    def _embed(self, texts: list[str], over_window: list[bool]) -> dict[str, _Entry]:
        vectors = self._vectors(texts)
        # Copies: an embedder may fill the same buffer again, and a row that is kept must not keep its whole batch.
        entries = {
            text: _Entry(vector.copy(), over) for text, vector, over in zip(texts, vectors, over_window, strict=True)
        }
        if self._store is not None:
            for text, entry in entries.items():
                self._store.put(text, entry.vector)
        return entries

    def _vectors(self, texts: list[str]) -> npt.NDArray[np.float32]:
        try:
            return as_vectors(self._embedder.encode(texts), len(texts), "what the embedder returned")
        except (ConfigError, ImportError, EmbedderFailedError):  # the former two are mistakes in the set-up
            raise
        except EmbeddingError as error:
            raise EmbedderFailedError(str(error)) from error
        except Exception as error:  # of whatever an embedder may raise, in a form that Ray carries between processes
            raise EmbedderFailedError(
                f"expected embeddings of {len(texts)} texts from the embedder ({type(self._embedder).__name__}), got "
                f"{type(error).__name__}: {error}; see the traceback above it, or set on_embedder_failure='invalid' to go "
                "on without the behavior term"
            ) from error

    def _lookup(self, texts: dict[str, None]) -> dict[str, _Entry]:
        found = {text: self._memory[text] for text in texts if text in self._memory}
        if self._store is not None:
            looked_up = {text: self._store.get(text) for text in texts if text not in found}
            stored = {text: vector for text, vector in looked_up.items() if vector is not None}
            sizes = self._window.sizes(list(stored))
            found.update((text, _Entry(stored[text], size.over)) for text, size in zip(stored, sizes, strict=True))
        return found

    def _remember(self, found: dict[str, _Entry]) -> None:
        for text, entry in found.items():
            self._memory[text] = entry
            self._memory.move_to_end(text)
        while len(self._memory) > self._memory_size:
            self._memory.popitem(last=False)

    def _warn_once(self, entries: Iterable[_Entry]) -> None:
        if self._warned:
            return
        over = [entry.over_window for entry in entries]
        if not self._tells_window:
            message = (
                f"the embedder ({type(self._embedder).__name__}) does not tell its window, so texts that it cuts go "
                "unnoticed; give it max_tokens and count_tokens(list[str]) -> list[int], or max_tokens = math.inf if no "
                "text is too long for it (said once)"
            )
        elif any(over):
            message = (
                f"{sum(over)} of {len(over)} texts are longer than the embedder's window of {self._window.tokens} tokens; "
                "their end, where the answer stands, is not embedded; use an embedder with a longer window, or shorter "
                "texts (said once; the count of every step is in its metrics)"
            )
        else:
            return
        self._warned = True
        warnings.warn(message, EmbeddingWindowWarning, stacklevel=3)


class SentenceTransformerEmbedder:
    """A sentence-transformers model, loaded from a hub name or a local directory.

    Measured with MiniLM (all-MiniLM-L6-v2) on texts of 200 words: weights in bfloat16 move an embedding's values by at most
    3.6e-3 and the behavior term by at most 1.6e-3, 4e-4 on average, where it spreads by 0.03 within a question.

    Args:
        model: Name or directory.
        device: Where it runs; None: sentence-transformers decides.
        dtype: Precision of its weights: "float32", "bfloat16", "float16", or "auto": the checkpoint's own.

    Raises:
        MissingDependencyError: sentence-transformers is not installed.
    """

    def __init__(self, model: str, *, device: str | None = None, dtype: str = "auto") -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ModuleNotFoundError as error:
            if error.name != "sentence_transformers":
                raise
            raise MissingDependencyError(
                f"the behavior term needs sentence-transformers to run {model!r}, and it is not installed; "
                "pip install tars-rewards[embeddings], pass your own embedder, or set beta=0"
            ) from error
        self._model = SentenceTransformer(model, device=device, model_kwargs={"dtype": dtype})
        self.model_id = f"{_model_id(model)} in {getattr(next(self._model.parameters(), None), 'dtype', dtype)}"
        # A CPU is fastest with little padding and with what its caches hold; an accelerator wants to be filled.
        # Texts a forward, and a call, which costs something too.
        self._together, self.batch_size = (4, 16) if self._model.device.type == "cpu" else (64, 64)

    @property
    def max_tokens(self) -> float | None:
        """Number of tokens that fit the model, special tokens included; None where the model does not say."""
        window: float | None = self._model.max_seq_length
        return window

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text, special tokens included, before anything is cut off."""
        return count_tokens(self._model, texts, prompt="")

    def encode(self, texts: list[str]) -> npt.NDArray[Any]:
        """[texts, dim]; the texts go to the model as they are, without a prompt, be it the model's default one."""
        vectors: npt.NDArray[Any] = self._model.encode(
            texts, prompt="", batch_size=self._together, show_progress_bar=False, convert_to_numpy=True
        )
        return vectors


def default_embedder(config: TARSConfig) -> Embedder:
    """The embedder that the settings name.

    Raises:
        MissingDependencyError: What it needs is not installed.
        ConfigError: The endpoint's API key is not where the settings say.
    """
    if config.embedder_url is None:
        return SentenceTransformerEmbedder(config.embedder, device=config.embedder_device, dtype=config.embedder_dtype)
    from tars_rewards.embedding_endpoint import EndpointEmbedder

    return EndpointEmbedder(
        config.embedder_url,
        config.embedder,
        api_key_var=config.embedder_api_key_var,
        deadline=config.embedder_deadline,
    )


def check_embedder(embedder: object, config: TARSConfig) -> None:
    """Check what an embedder needs to have.

    Raises:
        ConfigError: It has no `encode`, or no `model_id` although an on-disk cache is asked for.
    """
    if not callable(getattr(embedder, "encode", None)):
        raise ConfigError(f"expected an embedder with encode(list[str]) -> [N, dim], got {type(embedder).__name__}")
    if config.embedding_cache and not getattr(embedder, "model_id", None):
        raise ConfigError(
            f"embedding_cache needs to tell embedders apart, and {type(embedder).__name__} has no model_id; give it "
            "one (a string that changes with its weights), or set embedding_cache=None"
        )


def _model_id(model: str) -> str:
    """Name of a hub model; for a directory a fingerprint of its files, since a path may come to hold other weights."""
    if not Path(model).is_dir():
        return model
    files = sorted(path for path in Path(model).rglob("*") if path.is_file())
    listing = [f"{path.relative_to(model)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return f"files {xxhash.xxh3_128_hexdigest(chr(10).join(listing).encode())}"
