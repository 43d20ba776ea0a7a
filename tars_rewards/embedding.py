"""Sentence embeddings: each distinct text once, in small batches of like length, remembered in memory and on disk."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from tars_rewards.errors import EmbeddingError, EmbeddingWindowWarning, MissingDependencyError

if TYPE_CHECKING:
    import numpy.typing as npt

    from tars_rewards.cache import EmbeddingStore
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
        embedder: Does the work, `batch_size` texts a call (its attribute; 32 if it has none).
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
        self._window: int | None = getattr(embedder, "max_tokens", None)
        self._count_tokens = getattr(embedder, "count_tokens", None)

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts, each distinct one once.

        Args:
            texts: At least one text.

        Returns:
            float32 [texts, dim] in the order of the texts, and which of them exceed the embedder's window.

        Raises:
            EmbeddingError: The embedder returned the wrong count or shape, or values that are not finite.
        """
        with self._lock:
            found = self._lookup(dict.fromkeys(texts))
            missing = sorted(set(texts) - set(found), key=lambda text: (len(text), text))
            size = int(getattr(self._embedder, "batch_size", _BATCH))
            for start in range(0, len(missing), size):
                some = missing[start : start + size]
                vectors = as_vectors(self._embedder.encode(some), len(some), "what the embedder returned")
                for text, vector, over in zip(some, vectors, self._over_window(some), strict=True):
                    found[text] = _Entry(vector, over)
                    if self._store is not None:
                        self._store.put(text, vector)
            self._remember(found)
        entries = [found[text] for text in texts]
        sizes = sorted({entry.vector.size for entry in entries})
        if len(sizes) > 1:
            raise EmbeddingError(
                f"expected embeddings of one dimension, got {sizes}; if an on-disk cache is in use, give another "
                "directory, or another model_id to an embedder that has changed"
            )
        self._warn_once(sum(entry.over_window for entry in found.values()), len(found))
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
                over.update(zip(unknown, self._over_window(unknown), strict=True))
        return np.array([over[text] for text in texts], bool)

    @property
    def _tells_window(self) -> bool:
        return self._window is not None and self._count_tokens is not None

    def _lookup(self, texts: dict[str, None]) -> dict[str, _Entry]:
        found = {text: self._memory[text] for text in texts if text in self._memory}
        if self._store is not None:
            looked_up = {text: self._store.get(text) for text in texts if text not in found}
            stored = {text: vector for text, vector in looked_up.items() if vector is not None}
            flags = self._over_window(list(stored))
            found.update((text, _Entry(stored[text], over)) for text, over in zip(stored, flags, strict=True))
        return found

    def _remember(self, found: dict[str, _Entry]) -> None:
        for text, entry in found.items():
            self._memory[text] = entry
            self._memory.move_to_end(text)
        while len(self._memory) > self._memory_size:
            self._memory.popitem(last=False)

    def _over_window(self, texts: list[str]) -> list[bool]:
        if not texts or self._window is None or self._count_tokens is None:
            return [False] * len(texts)
        return [count > self._window for count in self._count_tokens(texts)]

    def _warn_once(self, over: int, total: int) -> None:
        if over and not self._warned:
            self._warned = True
            warnings.warn(
                f"{over} of {total} texts are longer than the embedder's window of {self._window} tokens; their end, "
                "where the answer stands, is not embedded; use an embedder with a longer window, or shorter texts "
                "(said once; the count of every step is in its metrics)",
                EmbeddingWindowWarning,
                stacklevel=3,
            )


def as_vectors(returned: Any, count: int, what: str) -> npt.NDArray[np.float32]:
    """Check embeddings and return them as float32 [count, dim].

    Raises:
        EmbeddingError: Not `count` rows of at least one value, or values that are NaN or inf.
    """
    if hasattr(returned, "detach"):  # torch: numpy knows neither bfloat16 nor other devices
        returned = returned.detach().float().cpu()
    vectors = np.asarray(returned, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count or vectors.shape[1] == 0:
        raise EmbeddingError(
            f"{what} has shape {vectors.shape}; expected [{count}, dim], one row for each of {count} texts; "
            "encode() must return a row for every text, in their order"
        )
    if not np.isfinite(vectors).all():
        raise EmbeddingError(
            f"{what} holds NaN or inf in row {int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])} of {count}; "
            "expected finite values; run the embedder in float32 or bfloat16"
        )
    return vectors


class SentenceTransformerEmbedder:
    """A sentence-transformers model, loaded from a hub name or a local directory.

    Args:
        model: Name or directory.
        device: Where it runs; None: sentence-transformers decides.

    Raises:
        MissingDependencyError: sentence-transformers is not installed.
    """

    def __init__(self, model: str, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ModuleNotFoundError as error:
            if error.name != "sentence_transformers":
                raise
            raise MissingDependencyError(
                f"the behavior term needs sentence-transformers to run {model!r}, and it is not installed; "
                "pip install tars-rewards[embeddings], pass your own embedder, or set beta=0"
            ) from error
        self._model = SentenceTransformer(model, device=device)
        self.model_id = _model_id(model)
        # Padding costs more than calls on a CPU; an accelerator wants to be filled.
        self.batch_size = 8 if self._model.device.type == "cpu" else 64

    @property
    def max_tokens(self) -> int | None:
        """Number of tokens that fit the model, special tokens included; None where the model does not say."""
        window = self._model.max_seq_length
        return None if window is None else int(window)

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text, special tokens included, before anything is cut off."""
        tokens = self._model.tokenizer(texts, truncation=False, padding=False, verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]

    def encode(self, texts: list[str]) -> npt.NDArray[Any]:
        """[texts, dim]; the texts go to the model as they are, without a prompt."""
        vectors: npt.NDArray[Any] = self._model.encode(
            texts, batch_size=max(1, len(texts)), show_progress_bar=False, convert_to_numpy=True
        )
        return vectors


def _model_id(model: str) -> str:
    """Name of a hub model; for a directory a fingerprint of its files, since a path may come to hold other weights."""
    if not Path(model).is_dir():
        return model
    files = sorted(path for path in Path(model).rglob("*") if path.is_file())
    listing = [f"{path.relative_to(model)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return f"files {xxhash.xxh3_128_hexdigest(chr(10).join(listing).encode())}"
