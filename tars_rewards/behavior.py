"""The behavior term: how alike what is said is, as a sentence embedder sees it.

`R_beh = cos(E(y_target), E(y_anchor))`, E a sentence embedder over the whole completion (arXiv 2601.05543, section 4.1,
behavior alignment).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tars_rewards.answers import strip_tags
from tars_rewards.errors import EmbeddingError
from tars_rewards.protocol import TermValue
from tars_rewards.similarity import cosine
from tars_rewards.vectors import as_vector

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch


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
        EmbeddingError: Embeddings are not finite, or not all of one dimension.
    """
    targets = np.flatnonzero(reference.numpy() >= 0)
    anchors = reference.numpy()[targets]
    texts = {
        index: strip_tags(completion) if strip else completion
        for index in np.unique(np.concatenate([targets, anchors])).tolist()
        for completion in [batch.rollouts[index].completion]
    }
    blank = [index for index, text in texts.items() if not text]
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
