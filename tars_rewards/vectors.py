"""Embeddings as an embedder or a framework hands them over, checked and made float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.errors import EmbeddingError

if TYPE_CHECKING:
    import numpy.typing as npt


def as_vectors(returned: Any, count: int, what: str) -> npt.NDArray[np.float32]:
    """Check embeddings and return them as float32 [count, dim]; may share memory with what came.

    Args:
        returned: A numpy array, a torch tensor, or a list of rows of either or of numbers.
        count: Number of rows expected.
        what: What this is, for messages.

    Raises:
        EmbeddingError: No array of real numbers, not `count` rows of at least one value, or values NaN or inf.
    """
    vectors = _as_float32(returned, what)
    if vectors.ndim != 2 or len(vectors) != count or vectors.shape[1] == 0:
        raise EmbeddingError(
            f"{what} has shape {vectors.shape}; expected [{count}, dim], one row for each of {count} texts; "
            "encode() must return a row for every text, in their order"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise EmbeddingError(
            f"{what} holds NaN or inf in row {int(np.flatnonzero(~finite)[0])} of {count}; expected finite values; run "
            "the embedder in float32 or bfloat16"
        )
    return vectors


def as_vector(given: Any, whose: str) -> npt.NDArray[np.float32]:
    """Check one embedding and return it as float32 [dim].

    Raises:
        EmbeddingError: No array of real numbers, not of one dimension, without values, or values NaN or inf.
    """
    if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.ndim == 1 and given.size:
        with np.errstate(all="ignore"):
            if math.isfinite(given.dot(given)):  # as a rule; the checks one by one take ten times as long
                return given
    vector = _as_float32(given, f"the embedding of {whose}")
    if vector.ndim != 1:
        raise EmbeddingError(f"{whose} has an embedding of shape {vector.shape}; expected [dim]")
    as_vectors(vector[None], 1, f"the embedding of {whose}")
    return vector


def _as_float32(given: Any, what: str) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(
            [_off_torch(row) for row in given] if isinstance(given, (list, tuple)) else _off_torch(given)
        )
        if array.dtype.kind in "cSU":  # numpy would drop the imaginary part, and read numbers out of strings
            raise TypeError(f"values are {array.dtype}")
        with np.errstate(over="ignore"):  # it becomes inf, which is refused
            vectors: npt.NDArray[np.float32] = array.astype(np.float32, copy=False)
            return vectors
    except (TypeError, ValueError) as error:
        raise EmbeddingError(
            f"{what} is a {type(given).__name__} that makes no array of real numbers ({error}); expected a numpy array, a "
            "torch tensor, or a list of rows of one length"
        ) from error


def _off_torch(value: Any) -> Any:
    """A tensor as an array: numpy knows neither bfloat16 nor other devices nor gradients."""
    if not hasattr(value, "detach"):
        return value
    if value.is_complex():
        raise TypeError(f"values are {value.dtype}")
    return value.detach().float().cpu().numpy()
