"""The behavior term: how alike what is said is, as a sentence embedder sees it.

`R_beh = cos(E(y_target), E(y_anchor))`, E a sentence embedder over the whole completion (arXiv 2601.05543, section 4.1,
behavior alignment).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tars_rewards.answers import strip_tags
from tars_rewards.errors import EmbedderFailedError, EmbedderFailureWarning, EmbeddingError
from tars_rewards.protocol import TermValue
from tars_rewards.similarity import cosine
from tars_rewards.vectors import as_vector

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch
    from tars_rewards.embedding import Embeddings


class BehaviorOfBatch(NamedTuple):
    """The behavior term of a batch, and what is logged of it."""

    term: TermValue
    over_window: int | None  #: distinct texts embedded here that exceed the window; None: not told, or none embedded
    failures: int  #: completions whose embedding failed


def behavior_of_batch(
    batch: RolloutBatch,
    reference: Int[Tensor, " rollouts"],
    *,
    encode: Callable[[Sequence[str]], Embeddings],
    strip: bool = False,
    tolerate: bool = False,
) -> BehaviorOfBatch:
    """`behavior_term`, and what becomes of it when the embedder fails.

    With a failure that counts the term is valid nowhere, not only where an embedding is missing: the completions of a
    question are compared with each other, and those without the term would look worse than those with it.

    Args:
        batch: See `behavior_term`.
        reference: See `behavior_term`.
        encode: See `TextEmbedder.encode`.
        strip: See `behavior_term`.
        tolerate: Go on without the term, with a warning, when the embedder fails; otherwise its error is raised. Only
            failures on completions that are compared count; whatever else goes wrong is raised in any case.

    Raises:
        EmbedderFailedError: The embedder failed, and `tolerate` is off.
        EmbeddingError: See `behavior_term`.
    """
    over: set[str] | None = None
    failures = sum(bool(rollout.embedding_failed) for rollout in batch.rollouts)

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        nonlocal over, failures
        try:
            vectors, flags = encode(texts)
        except EmbedderFailedError:
            failures += len(texts)
            raise
        if flags is not None:
            over = {text for text, flag in zip(texts, flags, strict=True) if flag}
        return vectors

    try:
        term = behavior_term(batch, reference, embed=embed, strip=strip)
    except EmbedderFailedError as error:
        if not tolerate:
            raise
        warnings.warn(
            f"the embedder failed on {failures} of {len(batch)} completions, so the behavior term is left out of the whole "
            f"batch (on_embedder_failure='invalid'): {error}",
            EmbedderFailureWarning,
            stacklevel=4,
        )
        term = TermValue.nowhere(len(batch))
    return BehaviorOfBatch(term, None if over is None else len(over), failures)


def behavior_term(
    batch: RolloutBatch,
    reference: Int[Tensor, " rollouts"],
    *,
    embed: Callable[[Sequence[str]], npt.NDArray[np.float32]],
    strip: bool = False,
) -> TermValue:
    """Cosine between the sentence embeddings of each target completion and its reference.

    Args:
        batch: A rollout's own `embedding` is used where it has one.
        reference: Index of each rollout's reference, -1 where it has none.
        embed: Turns the other texts into [texts, dim] vectors; called once, and only if there are any.
        strip: Take the think and answer tags out of the texts first.

    Returns:
        The term, in [-1, 1]; not valid without a reference, where an embedding is zero, or where nothing is left of a
        text without its tags.

    Raises:
        EmbedderFailedError: A rollout that is compared is marked as one that the embedder failed on.
        EmbeddingError: Embeddings are not finite, or not all of one dimension.
    """
    targets = np.flatnonzero(reference.numpy() >= 0)
    anchors = reference.numpy()[targets]
    texts = {
        index: strip_tags(completion) if strip else completion
        for index in np.unique(np.concatenate([targets, anchors])).tolist()
        for completion in [batch.rollouts[index].completion]
    }
    blank = [index for index, text in texts.items() if not text.strip()]  # endpoints refuse it
    speaking = ~np.isin(targets, blank) & ~np.isin(anchors, blank)
    targets, anchors = targets[speaking], anchors[speaking]
    term = TermValue.nowhere(len(batch))
    if targets.size:
        involved = np.unique(np.concatenate([targets, anchors]))
        vectors = torch.from_numpy(_vectors(batch, {index: texts[index] for index in involved.tolist()}, embed))
        left = vectors[np.searchsorted(involved, targets)]
        right = vectors[np.searchsorted(involved, anchors)]
        term.values[targets], term.valid[targets] = cosine(left, right)
    return term


def _vectors(
    batch: RolloutBatch, texts: dict[int, str], embed: Callable[[Sequence[str]], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    failed = next((index for index in texts if batch.rollouts[index].embedding_failed), None)
    if failed is not None:
        raise EmbedderFailedError(
            f"{batch.describe(failed)} has no embedding, because the embedder failed on it earlier (embedding_failed); see "
            "the embedder's error where the completion was embedded"
        )
    found: dict[int, npt.NDArray[np.float32]] = {
        index: as_vector(given, batch.describe(index))
        for index in texts
        if (given := batch.rollouts[index].embedding) is not None
    }
    missing = [index for index in texts if index not in found]
    if missing:
        found.update(zip(missing, embed([texts[index] for index in missing]), strict=True))
    first = next(iter(texts))
    for index in texts:
        if found[index].shape != found[first].shape:
            raise EmbeddingError(
                f"{batch.describe(index)} has an embedding of {found[index].size} values, but {batch.describe(first)} "
                f"one of {found[first].size}; expected one dimension; use the same embedder for every rollout"
            )
    return np.stack([found[index] for index in texts])
