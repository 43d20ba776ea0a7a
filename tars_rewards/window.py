"""How many tokens an embedder takes: what does not fit is cut off without a word, and the answer stands at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

_COUNTED = 1024
"""Texts whose tokens are counted at once: the tokens of all completions of a large batch would fill the memory."""


class Size(NamedTuple):
    """How long a text is to an embedder."""

    read: float  #: tokens that the embedder reads of it, or characters where tokens are not counted
    over: bool  #: the text exceeds the window


class Window:
    """The window of an embedder, as far as the embedder tells it.

    It is asked for `max_tokens` and `count_tokens(list[str]) -> list[int]`; a plain SentenceTransformer for its
    `max_seq_length` and its tokenizer. `max_tokens = math.inf` says that no text is too long.

    Args:
        embedder: Any embedder; asked anew every time, since its window may be changed while it is in use.
    """

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder

    @property
    def tokens(self) -> float | None:
        """Tokens that fit; None where the embedder does not tell."""
        told: float | None = getattr(self._embedder, "max_tokens", getattr(self._embedder, "max_seq_length", None))
        return told

    @property
    def told(self) -> bool:
        """Whether it can be said which texts do not fit."""
        return self.tokens == math.inf or (self.tokens is not None and self._counter is not None)

    def sizes(self, texts: Sequence[str]) -> list[Size]:
        """Size of each text; `over` is False too where that is not told."""
        tokens, count = self.tokens, self._counter
        if count is None or tokens is None or tokens == math.inf:
            return [Size(len(text), False) for text in texts]
        blocks = (list(texts[start : start + _COUNTED]) for start in range(0, len(texts), _COUNTED))
        return [Size(min(length, tokens), length > tokens) for block in blocks for length in count(block)]

    @property
    def _counter(self) -> Callable[[list[str]], Sequence[int]] | None:
        count: Callable[[list[str]], Sequence[int]] | None = getattr(self._embedder, "count_tokens", None)
        if count is None and not hasattr(self._embedder, "max_tokens"):
            # Some models (static embeddings) have a tokenizer of another kind, which cannot be called.
            return (
                partial(count_tokens, self._embedder) if callable(getattr(self._embedder, "tokenizer", None)) else None
            )
        return count


def count_tokens(model: Any, texts: Sequence[str], *, prompt: str | None = None) -> list[int]:
    """Tokens of each text for a SentenceTransformer, special tokens included, before anything is cut off.

    Args:
        model: The SentenceTransformer.
        texts: The texts.
        prompt: What is put before each text; None: the model's default prompt, if it has one.
    """
    if prompt is None:
        prompt = (getattr(model, "prompts", None) or {}).get(getattr(model, "default_prompt_name", None), "")
    tokens = model.tokenizer([f"{prompt}{text}" for text in texts], truncation=False, padding=False, verbose=False)
    return [len(ids) for ids in tokens["input_ids"]]
