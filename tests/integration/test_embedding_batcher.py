"""Embeddings of single completions are computed in batches, and errors reach whoever asked."""

import asyncio
import random
import threading
import time

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


@pytest.mark.parametrize("fails", [False, True])
def test_who_no_longer_waits_keeps_nobody_from_an_answer(fails):
    release = threading.Event()

    def encode(texts):
        assert release.wait(5)
        if fails:
            raise ValueError("out of memory")
        return [text.upper() for text in texts]

    async def main():
        batcher = EmbeddingBatcher(encode)
        gone, still = (asyncio.create_task(batcher.embed(text)) for text in "ab")
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        release.set()
        answers = await asyncio.wait_for(asyncio.gather(gone, still, return_exceptions=True), 5)
        return [str(answer) if isinstance(answer, ValueError) else answer for answer in answers]

    cancelled, answer = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert answer == ("out of memory" if fails else "B")


def test_when_generation_is_the_longer_its_end_is_nearly_that_of_embedding():
    """Sixteen completions at a time, as an engine generates them, and an embedder that is busy for 60 % of that time."""
    draw = random.Random(0)
    busy, ended = [], []

    def encode(texts):
        begun = time.monotonic()
        time.sleep(0.012 * len(texts))
        busy.append((begun, time.monotonic()))
        return texts

    async def main():
        batcher, slots = EmbeddingBatcher(encode), asyncio.Semaphore(16)

        async def complete(seconds):
            async with slots:
                await asyncio.sleep(seconds)
            ended.append(time.monotonic())
            await batcher.embed("text")

        await asyncio.gather(*(complete(draw.uniform(0.15, 0.45)) for _ in range(64)))

    asyncio.run(main())
    last = max(ended)
    overlap = sum(max(0, min(end, last) - begin) for begin, end in busy) / sum(end - begin for begin, end in busy)
    assert overlap >= 0.9
    assert sum(begin > last for begin, _ in busy) <= 1
    assert 4 < len(busy) < 64
