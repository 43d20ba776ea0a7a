"""The endpoint embedder in other processes and threads, and chosen by the config alone."""

import math
import multiprocessing
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from embedding_server import EmbeddingServer, Reply, rows, vector

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.embedding import TextEmbedder
from tars_rewards.embedding_endpoint import EndpointEmbedder
from tars_rewards.errors import EmbedderFailedError

TEXTS = ["one", "two", "three is longer", "vier", "ünf 五"]


def expected(texts=TEXTS):
    return np.stack([vector(text) for text in texts])


def client(server, **options):
    return EndpointEmbedder(server.url, "m", **{"backoff": 0.01, "deadline": 20, **options})


# ---- processes and threads


def test_pickled_before_and_after_use(key):
    with EmbeddingServer() as server:
        embedder = client(server, api_key_var="MY_KEY")
        for _ in range(2):
            embedder = pickle.loads(pickle.dumps(embedder))
            np.testing.assert_array_equal(embedder.encode(TEXTS), expected())
        assert all(headers["Authorization"] == f"Bearer {key}" for headers in server.headers)
        with EmbeddingServer(Reply(200, rows([1.0, 2.0]))) as other:
            again = pickle.loads(pickle.dumps(embedder))
            again._endpoint.url = f"{other.url}/embeddings"
            with pytest.raises(EmbedderFailedError, match="expected 6 values"):  # what it learned goes along
                again.encode(["a"])


def in_another_process(embedder, queue):
    queue.put(embedder.encode(TEXTS))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_connect_for_themselves(method):
    with EmbeddingServer() as server:
        embedder = client(server)
        embedder.encode(["before"])
        context = multiprocessing.get_context(method)
        if method == "spawn":
            program = "import pickle, sys; e, t = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(pickle.dumps(e.encode(t)))"
            done = subprocess.run(
                [sys.executable, "-c", program], input=pickle.dumps((embedder, TEXTS)), capture_output=True, check=True
            )
            theirs = pickle.loads(done.stdout)
        else:
            queue = context.Queue()
            child = context.Process(target=in_another_process, args=(embedder, queue))
            child.start()
            theirs = queue.get(timeout=60)
            child.join(60)
        np.testing.assert_array_equal(theirs, expected())
        np.testing.assert_array_equal(embedder.encode(TEXTS), expected())
        before, their, after = server.connections
        assert before == after != their


def test_many_threads():
    with EmbeddingServer(*[Reply(503)] * 5, shuffle=True, most=7) as server:
        embedder, wrong = client(server), []

        def work(number):
            texts = [f"{number} {n}" for n in range(3 + number)]
            for _ in range(3):
                if not np.array_equal(embedder.encode(texts), expected(texts)):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert not any(thread.is_alive() for thread in threads)


# ---- chosen by the config


def config(server, **more):
    return TARSConfig(alpha=0, embedder="m", embedder_url=server.url + "/", **more)


ROLLOUTS = [
    Rollout("q", "speech", 0, completion="it is two", correct=True),
    Rollout("q", "speech", 1, completion="three", correct=False),
    Rollout("q", "text", 0, completion="two", correct=True),
]


def test_a_reward_by_the_config_alone(key):
    from scipy.spatial.distance import cosine

    with EmbeddingServer(Reply(503)) as server:
        reward = pickle.loads(pickle.dumps(TARSReward(config(server, embedder_api_key_var="MY_KEY"))))
        with pytest.warns(UserWarning, match="does not tell its window"):
            found = reward(ROLLOUTS).components["behavior"].tolist()
    assert found == pytest.approx(
        [1 - cosine(vector("it is two"), vector("two")), 1 - cosine(vector("three"), vector("two")), 0], abs=1e-6
    )
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {key}"}
    assert server.requests[-1]["model"] == "m"


@pytest.mark.filterwarnings("ignore:.*does not tell its window")
def test_embeddings_are_kept_on_disk_by_model_and_url(tmp_path):
    with EmbeddingServer() as server, EmbeddingServer() as other:
        for _ in range(2):
            TARSReward(
                config(server, embedding_cache=tmp_path),
            ).embed(TEXTS)
        assert server.sizes == [5]
        TARSReward(config(other, embedding_cache=tmp_path)).embed(TEXTS)
        assert other.sizes == [5]
        TARSReward(TARSConfig(embedder="other", embedder_url=server.url, embedding_cache=tmp_path)).embed(TEXTS)
        assert server.sizes == [5, 5]


def test_the_deadline_is_the_configs():
    with EmbeddingServer(always=Reply(503)) as server, pytest.raises(EmbedderFailedError, match=r"deadline 0\.2 s"):
        TARSReward(config(server, embedder_deadline=0.2)).embed(["a"])


def test_an_endpoint_that_refuses_what_is_too_long_may_say_so():
    with EmbeddingServer() as server:
        assert TextEmbedder(client(server, max_tokens=math.inf)).encode(["a"]).over_window.tolist() == [False]
        with pytest.warns(UserWarning, match="EndpointEmbedder.* does not tell its window"):
            assert TextEmbedder(client(server)).encode(["a"]).over_window is None


@pytest.mark.parametrize("missing", ["httpx", "tenacity"])
def test_what_is_not_installed_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs {missing}, .*pip install tars-rewards\[embeddings\]"):
        EndpointEmbedder("http://h/v1", "m")
