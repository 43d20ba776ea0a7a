"""Embeddings of single completions are computed in batches, and errors reach whoever asked."""

import asyncio
import threading

import numpy as np
import pytest

from tars_rewards.integration.embedding_batcher import EmbeddingBatcher


def test_what_comes_in_meanwhile_is_embedded_together():
    calls, release = [], threading.Event()

    def encode(texts):
        calls.append(list(texts))
        if len(calls) == 1:
            assert release.wait(5)
        return np.array([[len(text)] for text in texts])

    async def main():
        batcher = EmbeddingBatcher(encode)
        first = asyncio.create_task(batcher.embed("a"))
        while not calls:
            await asyncio.sleep(0.01)
        rest = [asyncio.create_task(batcher.embed("b" * n)) for n in (2, 3, 4)]
        await asyncio.sleep(0.05)
        release.set()
        return [await task for task in (first, *rest)]

    vectors = asyncio.run(main())
    assert [float(vector[0]) for vector in vectors] == [1, 2, 3, 4]
    assert calls == [["a"], ["bb", "bbb", "bbbb"]]
    assert all(vector.dtype == np.float32 for vector in vectors)


def test_an_encoder_error_reaches_everyone_who_waits_and_the_next_batch_works():
    def encode(texts):
        if "bad" in texts:
            raise ValueError("out of memory")
        return np.zeros((len(texts), 2))

    async def main():
        batcher = EmbeddingBatcher(encode)
        failed = await asyncio.gather(*(batcher.embed(t) for t in ("bad", "good")), return_exceptions=True)
        return failed, await batcher.embed("good")

    failed, vector = asyncio.run(main())
    assert [str(error) for error in failed] == ["out of memory"] * 2
    assert vector.shape == (2,)


def test_a_wrong_count_is_an_error_not_a_hang():
    async def main():
        return await EmbeddingBatcher(lambda texts: np.zeros((0, 2))).embed("a")

    with pytest.raises(ValueError, match="zip"):
        asyncio.run(asyncio.wait_for(main(), 5))
