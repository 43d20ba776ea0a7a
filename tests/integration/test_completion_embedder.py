"""Completions embedded one by one: what travels with each, and that a dead embedder is not waited for again and again."""

import asyncio
import threading
import time
import warnings

import numpy as np
import pytest

from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError, EmbedderFailedError, EmbedderFailureWarning
from tars_rewards.integration.completion_embedder import CompletionEmbedder, over_window_metric
from tars_rewards.reward import TARSReward


class Embedder:
    """A window of two words. Fails as told, after a while."""

    max_tokens = 2

    def __init__(self, failure=None, seconds=0.0):
        self.failure, self.seconds, self.calls = failure, seconds, []

    def encode(self, texts):
        self.calls.append(list(texts))
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return np.array([[len(text), 1.0] for text in texts])

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


def made(embedder, mode="invalid", *, pause=60.0, **config):
    return CompletionEmbedder(
        TARSReward(TARSConfig(on_embedder_failure=mode, **config), embedder=embedder), pause=pause
    )


def embed(completions, *texts):
    async def main():
        return await asyncio.gather(*(completions.embed(text) for text in texts))

    return asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*window")
@pytest.mark.parametrize("mode", ["stop", "invalid"])
def test_what_travels_with_a_completion(mode):
    embedder = Embedder()
    short, long, blank = embed(made(embedder, mode), "a b", "a b c", " \n")
    assert (short.vector.tolist(), short.over_window, short.failed) == ([3, 1], False, False)
    assert (long.vector.tolist(), long.over_window, long.failed) == ([5, 1], True, False)
    assert blank == (None, None, False)
    assert [text for call in embedder.calls for text in call] == ["a b", "a b c"]


@pytest.mark.filterwarnings("ignore:.*window")
@pytest.mark.parametrize("remembered", [0, 100])
def test_all_that_takes_time_is_done_beside_the_event_loop(remembered):
    """Also what is not remembered when its turn comes."""
    threads = set()

    class Watched(Embedder):
        def encode(self, texts):
            threads.add(threading.current_thread())
            return super().encode(texts)

        def count_tokens(self, texts):
            threads.add(threading.current_thread())
            return super().count_tokens(texts)

    found = embed(made(Watched(), embedding_cache_size=remembered), "a b", "a b c", "a b")
    assert [each.over_window for each in found] == [False, True, False]
    assert threads
    assert threading.main_thread() not in threads


def test_what_is_blank_without_its_tags_is_not_embedded():
    embedder = Embedder()
    assert embed(made(embedder, strip_tags=True), "<think></think>") == [(None, None, False)]
    assert embedder.calls == []


def test_an_embedder_without_a_window():
    embedder = Embedder()
    embedder.max_tokens = None
    with pytest.warns(UserWarning, match="does not tell its window"):
        (found,) = embed(made(embedder), "a b c")
    assert found.over_window is None


def test_a_failure_stops_the_run_by_default():
    with pytest.raises(EmbedderFailedError, match="ConnectionError: down"):
        embed(made(Embedder(ConnectionError("down")), "stop"), "a", "b")


def test_in_mode_stop_every_batch_is_tried():
    embedder = Embedder(ConnectionError("down"))
    completions = made(embedder, "stop")
    for _ in range(2):
        with pytest.raises(EmbedderFailedError):
            embed(completions, "a")
    assert len(embedder.calls) == 2


def test_a_dead_embedder_is_asked_once_and_all_completions_go_on():
    embedder = Embedder(ConnectionError("down"), seconds=0.3)
    completions = made(embedder)

    async def main():
        first = asyncio.create_task(completions.embed("first"))
        await asyncio.sleep(0.1)
        return [await first, *await asyncio.gather(*(completions.embed(f"text {n}") for n in range(50)))]

    begun = time.monotonic()
    with pytest.warns(EmbedderFailureWarning, match=r"not asked again for 60 s.*ConnectionError: down"):
        found = asyncio.run(main())
    found += embed(completions, "later")
    assert time.monotonic() - begun < 2
    assert [item == (None, None, True) for item in found] == [True] * 52
    assert embedder.calls == [["first"]]


def test_after_the_pause_it_is_asked_again():
    embedder = Embedder(ConnectionError("down"))
    completions = made(embedder, pause=0.2)
    with pytest.warns(EmbedderFailureWarning):
        assert embed(completions, "a")[0].failed
    embedder.failure = None
    assert embed(completions, "b")[0].failed
    time.sleep(0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmbedderFailureWarning)
        (found,) = embed(completions, "b")
    assert (found.vector.tolist(), found.failed) == ([1, 1], False)
    assert embedder.calls == [["a"], ["b"]]


def test_the_pause_is_as_long_as_the_failure_took():
    embedder = Embedder(ConnectionError("down"), seconds=0.5)
    completions = made(embedder, pause=0.0)
    with pytest.warns(EmbedderFailureWarning):
        embed(completions, "a")
    time.sleep(0.2)
    assert embed(completions, "b")[0].failed
    assert len(embedder.calls) == 1


def test_mistakes_of_the_set_up_stop_the_run():
    with pytest.raises(ConfigError, match="no key"):
        embed(made(Embedder(ConfigError("no key"))), "a")


@pytest.mark.parametrize(
    ("flags", "metric"),
    [
        ([], None),
        ([None, None], None),
        ([float("nan")], None),
        ([0.0, None], 0.0),
        ([1.0, 0.0, 1.0, float("nan")], 2.0),
    ],
)
def test_a_window_that_is_not_told_is_not_logged_as_zero(flags, metric):
    assert over_window_metric(flags).get("tars/behavior/over_window") == metric
