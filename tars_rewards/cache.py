"""Embeddings kept on disk between runs, shared by many processes.

One small file a text, named by a hash of the embedder's identity and the text: the vector as little-endian float32, and
behind it a checksum. A file appears under its name complete or not at all (written aside, then renamed), and two
processes that write the same text write the same bytes. Whatever else a file holds, it is not taken for a vector.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    import numpy.typing as npt

_log = logging.getLogger(__name__)

_FLOAT = np.dtype("<f4")
_CHECKSUM = 16  # bytes


class EmbeddingStore:
    """A directory of embeddings of one embedder.

    Args:
        directory: Made if it does not exist. Several embedders may share it.
        model_id: What makes an embedder's vectors its own; another id never sees them.
    """

    def __init__(self, directory: str | os.PathLike[str], *, model_id: str) -> None:
        self._directory = Path(directory)
        self._model = model_id.encode("utf-8", "surrogatepass") + b"\0"

    def get(self, text: str) -> npt.NDArray[np.float32] | None:
        """Return the [dim] vector of a text; None if it is not kept, or its file is damaged or cannot be read.

        The latter is logged as a warning. The text is then embedded again and the file rewritten.
        """
        path = self._path(text)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("embedding cache: %s cannot be read (%s); the text is embedded again", path, error)
            return None
        values, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
        if not values or len(values) % _FLOAT.itemsize or checksum != _checksum(path, values):
            _log.warning("embedding cache: %s is damaged; the text is embedded again", path)
            return None
        return np.frombuffer(values, _FLOAT).astype(np.float32)

    def put(self, text: str, vector: npt.NDArray[np.float32]) -> None:
        """Keep the vector of a text.

        Raises:
            OSError: The file cannot be written, for instance because the disk is full.
        """
        path = self._path(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = vector.astype(_FLOAT).tobytes()
        aside = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            # Not tempfile's, which only its owner may read: what others may do is the umask's business.
            aside.write_bytes(values + _checksum(path, values))
            os.replace(aside, path)
        except IsADirectoryError as error:
            _log.warning("embedding cache: %s is in the way of a file (%s); the text is not kept", path, error)
        finally:
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()

    def _path(self, text: str) -> Path:
        key = xxhash.xxh3_128_hexdigest(self._model + text.encode("utf-8", "surrogatepass"))
        return self._directory / key[:2] / f"{key}.vector"


def _checksum(path: Path, values: bytes) -> bytes:
    """Over the name too, so that a file copied to another text's place is damaged there."""
    return xxhash.xxh3_128_digest(path.stem.encode() + values)
