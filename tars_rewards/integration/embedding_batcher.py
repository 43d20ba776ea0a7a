"""Embeddings for a framework that finishes completions one by one, while others still generate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_Embedded = TypeVar("_Embedded")


class EmbeddingBatcher(Generic[_Embedded]):
    """Embeds in one batch whatever came in while the batch before was being embedded.

    The embedder is thus never idle while a text waits, so that no other order of the same work would be done earlier: when
    the last completion arrives, what is left is the batch under way, and one of all that have come since it began.

    Args:
        encode: What is known of each text, in their order; run in a thread so that the event loop goes on.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Sequence[_Embedded]]) -> None:
        self._encode = encode
        self._waiting: list[tuple[str, asyncio.Future[_Embedded]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def embed(self, text: str) -> _Embedded:
        """What `encode` says of a text; an error of it is raised here."""
        future: asyncio.Future[_Embedded] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                embedded = await loop.run_in_executor(None, self._encode, [text for text, _ in batch])
                answered = list(zip(batch, embedded, strict=True))
            except Exception as error:  # whatever it is, it belongs to those who wait for these texts
                for _, future in batch:
                    if not future.done():  # whoever waited may have been cancelled
                        future.set_exception(error)
                continue
            for (_, future), result in answered:
                if not future.done():
                    future.set_result(result)
