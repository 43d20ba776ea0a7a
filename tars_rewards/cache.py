"""Embeddings kept on disk between runs, shared by many processes.

One small file a text, named by a hash of the embedder's identity and the text. A file appears under its name complete
or not at all (written aside, then renamed), and two processes that write the same text write the same bytes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    import numpy.typing as npt

_log = logging.getLogger(__name__)


class EmbeddingStore:
    """A directory of embeddings of one embedder.

    Args:
        directory: Made if it does not exist. Several embedders may share it.
        model_id: What makes an embedder's vectors its own; another id never sees them.
    """

    def __init__(self, directory: str | os.PathLike[str], *, model_id: str) -> None:
        self._directory = Path(directory)
        self._model = model_id.encode() + b"\0"

    def get(self, text: str) -> npt.NDArray[np.float32] | None:
        """Return the [dim] vector of a text; None if it is not kept, or its file is damaged (it is then rewritten)."""
        path = self._path(text)
        try:
            vector = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError) as error:
            _log.warning("embedding cache: %s is damaged (%s); the text is embedded again", path, error)
            return None
        if vector.ndim != 1 or vector.dtype != np.float32 or not np.isfinite(vector).all():
            _log.warning("embedding cache: %s holds no float32 vector; the text is embedded again", path)
            return None
        kept: npt.NDArray[np.float32] = vector
        return kept

    def put(self, text: str, vector: npt.NDArray[np.float32]) -> None:
        """Keep the vector of a text."""
        path = self._path(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vector, allow_pickle=False)
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise

    def _path(self, text: str) -> Path:
        key = xxhash.xxh3_128_hexdigest(self._model + text.encode("utf-8", "surrogatepass"))
        return self._directory / key[:2] / f"{key}.npy"
