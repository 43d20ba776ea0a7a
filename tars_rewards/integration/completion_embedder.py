"""The embedding of one completion, in a framework's rollout: what travels with it, and what a failure does."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tars_rewards.answers import strip_tags
from tars_rewards.errors import EmbedderFailedError, EmbedderFailureWarning
from tars_rewards.integration.embedding_batcher import EmbeddingBatcher

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tars_rewards.reward import TARSReward

PAUSE = 60.0
"""Seconds, at the least, in which an embedder that has failed is not asked again."""


class EmbeddedCompletion(NamedTuple):
    """What the final reward needs to know of a completion's embedding."""

    vector: npt.NDArray[np.float32] | None
    """float32 [dim]; None: there is nothing to embed or to compare with, or the embedder failed."""
    over_window: bool | None  #: the text exceeds the embedder's window; None: not told, or there is no vector
    failed: bool = False  #: see `Rollout.embedding_failed`


NOT_EMBEDDED = EmbeddedCompletion(None, None)
"""Of a completion that takes part in no comparison."""


class CompletionEmbedder:
    """Embeds completions as they finish, in batches, and keeps to the config's `on_embedder_failure`.

    With "stop" the embedder's error is raised for every completion of the batch. With "invalid" a failure is warned of and
    noted in what is returned, and for a while every further completion fails at once: no rollout waits for an endpoint's
    deadline again and again. The while is as long as the failure took, `pause` at the least.

    Args:
        reward: Its `embed` and `over_window` are asked.
        pause: Seconds.
    """

    def __init__(self, reward: TARSReward, *, pause: float = PAUSE) -> None:
        self._reward = reward
        self._pause = pause
        self._tolerates = reward.config.on_embedder_failure == "invalid"
        self._asked_again = 0.0  # from when on, by the monotonic clock
        self._batcher = EmbeddingBatcher(self._encode)

    async def embed(self, completion: str) -> EmbeddedCompletion:
        """Embedding of a completion.

        Raises:
            EmbedderFailedError: The embedder failed, and `on_embedder_failure` is "stop".
        """
        text = strip_tags(completion) if self._reward.config.strip_tags else completion
        if not text.strip():  # takes part in no comparison, and endpoints refuse it
            return NOT_EMBEDDED
        try:
            return await self._batcher.embed(completion)
        except EmbedderFailedError:
            if not self._tolerates:
                raise
            return EmbeddedCompletion(None, None, failed=True)

    def _encode(self, completions: Sequence[str]) -> list[EmbeddedCompletion]:
        begun = time.monotonic()
        if begun < self._asked_again:
            raise EmbedderFailedError("the embedder failed a moment ago, and is not asked again yet")
        try:
            vectors = self._reward.embed(completions)
        except EmbedderFailedError as error:
            if self._tolerates:
                ended = time.monotonic()
                pause = max(self._pause, ended - begun)
                self._asked_again = ended + pause
                warnings.warn(
                    f"the embedder failed on {len(completions)} completions, and is not asked again for {pause:.0f} s; the "
                    f"behavior term is left out of what they take part in (on_embedder_failure='invalid'): {error}",
                    EmbedderFailureWarning,
                    stacklevel=2,
                )
            raise
        # Here and not where they are awaited: a text that is no longer remembered is counted anew, and that takes a while.
        flags = self._reward.over_window(completions)
        told = [None] * len(vectors) if flags is None else map(bool, flags)
        return [EmbeddedCompletion(vector, over) for vector, over in zip(vectors, told, strict=True)]


def over_window_metric(flags: Iterable[float | None]) -> dict[str, float]:
    """The count of completions longer than the embedder's window, to log; left out where the embedder tells no window.

    Args:
        flags: Of each completion: 1 or 0; None or NaN where it is not known.

    Example:
        >>> over_window_metric([1.0, None, 0.0]), over_window_metric([None, float("nan")])
        ({'tars/behavior/over_window': 1.0}, {})
    """
    known = [flag for flag in flags if flag is not None and not math.isnan(flag)]
    return {"tars/behavior/over_window": float(sum(known))} if known else {}
