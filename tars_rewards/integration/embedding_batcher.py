"""Embeddings for a framework that finishes completions one by one, while others still generate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


class EmbeddingBatcher:
    """Embeds in one batch whatever came in while the batch before was being embedded.

    Args:
        encode: ``list[str] -> [N, dim]``, run in a thread so that the event loop goes on.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Vector]) -> None:
        self._encode = encode
        self._waiting: list[tuple[str, asyncio.Future[Vector]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def embed(self, text: str) -> Vector:
        """Embedding of ``text``, float32 [dim]; an error of the encoder is raised here."""
        future: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                vectors = await loop.run_in_executor(None, self._encode, [text for text, _ in batch])
                answered = list(zip(batch, vectors, strict=True))
            except Exception as error:  # whatever it is, it belongs to those who wait for these texts
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), vector in answered:
                future.set_result(np.asarray(vector, dtype=np.float32))
