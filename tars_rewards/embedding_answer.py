"""What an OpenAI-compatible embeddings endpoint answers, read and checked."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.errors import EmbeddingError
from tars_rewards.vectors import as_vectors

if TYPE_CHECKING:
    import numpy.typing as npt


def read_embeddings(content: bytes, count: int) -> npt.NDArray[np.float32]:
    """Vectors of an answer, in the order of their indices: float32 [count, dim].

    Args:
        content: JSON `{"data": [{"index": 0, "embedding": [numbers] or "base64 of little-endian float32"}, …]}`, in any
            order.
        count: Number of texts that were sent.

    Raises:
        EmbeddingError: It is something else, an index is missing or there twice, or the vectors are not finite or not of
            one dimension. The message says what came.
    """
    try:
        rows = json.loads(content)["data"]
        by_index = {row["index"]: _decoded(row["embedding"]) for row in rows}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EmbeddingError('something else than JSON {"data": [{"index", "embedding"}, …]}') from error
    if len(rows) != count or by_index.keys() != set(range(count)):
        indices = ", ".join(str(row["index"]) for row in rows[:20])
        raise EmbeddingError(
            f"{len(rows)} embeddings with the indices {indices}, not each index from 0 to {count - 1} once"
        )
    return as_vectors([by_index[index] for index in range(count)], count, "an answer that")


def _decoded(embedding: Any) -> Any:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    return embedding
