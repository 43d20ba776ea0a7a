"""The endpoint embedder against a real HTTP server: what is retried, what is not, what is refused, what is kept secret."""

import threading
import time
from email.utils import formatdate

import numpy as np
import pytest
from embedding_server import EmbeddingServer, Reply, rows, vector

from tars_rewards.embedding_endpoint import EndpointEmbedder
from tars_rewards.errors import EmbedderFailedError

TEXTS = ["one", "two", "three is longer", "vier", "ünf 五"]


def expected(texts=TEXTS):
    return np.stack([vector(text) for text in texts])


def client(server, **options):
    return EndpointEmbedder(server.url, "m", **{"backoff": 0.01, "deadline": 20, **options})


# ---- what is sent, and what is understood


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_vectors_come_in_the_order_of_the_texts(encoding, shuffle):
    with EmbeddingServer(shuffle=shuffle) as server:
        vectors = client(server, encoding=encoding).encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected())
    assert server.requests == [{"model": "m", "input": TEXTS, "encoding_format": encoding}]
    assert "Authorization" not in server.headers[0]


def test_the_same_embedding_in_either_encoding_and_in_any_batch_size():
    with EmbeddingServer() as server:
        for size in (1, 2, 64):
            np.testing.assert_array_equal(client(server, batch_size=size).encode(TEXTS), expected())
    assert server.sizes == [1, 1, 1, 1, 1, 2, 2, 1, 5]


def test_base64_is_understood_unasked():
    with EmbeddingServer(Reply(200, rows("AACAPwAAAEA="))) as server:
        assert client(server).encode(["x"]).tolist() == [[1.0, 2.0]]


def test_half_a_surrogate_pair_can_be_sent():
    with EmbeddingServer() as server:
        client(server).encode(["a\ud800b"])
    assert server.requests[0]["input"] == ["a?b"]


# ---- retries


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status):
    with EmbeddingServer(Reply(status), Reply(status), Reply(status)) as server:
        np.testing.assert_array_equal(client(server).encode(TEXTS), expected())
    assert server.sizes == [5] * 4


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_what_cannot_pass_is_not(status):
    with EmbeddingServer(always=Reply(status, "no \n  entry")) as server:
        with pytest.raises(
            EmbedderFailedError, match=f"5 texts by 'm' from {server.url}/embeddings, got status {status}"
        ):
            client(server).encode(TEXTS)
        assert server.sizes == [5]


def test_pauses_grow_and_differ():
    with EmbeddingServer(*[Reply(503)] * 5) as server:
        client(server, backoff=0.05).encode(["x"])
        pauses = np.diff(server.at)
    # Full jitter: the n-th is uniform in [0, 0.05 x 2^n].
    assert all(pause <= 0.05 * 2**n + 0.15 for n, pause in enumerate(pauses))
    assert len(np.unique(pauses.round(4))) > 1


@pytest.mark.parametrize("form", ["seconds", "fraction", "date"])
def test_retry_after_is_kept_to(form):
    value = {"seconds": "1", "fraction": "0.8", "date": formatdate(time.time() + 2, usegmt=True)}[form]
    with EmbeddingServer(Reply(429, headers={"Retry-After": value})) as server:
        client(server).encode(["x"])
        assert 0.75 <= server.at[1] - server.at[0] < 4


def test_a_retry_after_beyond_the_deadline_is_not_waited_for():
    with EmbeddingServer(always=Reply(429, headers={"Retry-After": "600"})) as server:
        begun = time.monotonic()
        with pytest.raises(
            EmbedderFailedError, match=r"status 429.* and to wait 600 s, after 1 attempts .*deadline 20 s"
        ):
            client(server).encode(["x"])
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("value", ["soon", "", "-5"])
def test_a_retry_after_that_says_nothing_is_left_out(value):
    with EmbeddingServer(Reply(429, headers={"Retry-After": value})) as server:
        np.testing.assert_array_equal(client(server).encode(["x"]), expected(["x"]))


def test_the_deadline_ends_the_attempts():
    with EmbeddingServer(always=Reply(503, "overloaded")) as server:
        begun = time.monotonic()
        with pytest.raises(EmbedderFailedError, match=r"status 503: 'overloaded', after \d+ attempts .*deadline 1 s"):
            client(server, deadline=1).encode(["x"])
        assert time.monotonic() - begun < 3
        assert len(server.requests) > 2


def test_an_endpoint_that_is_down():
    with EmbeddingServer() as server:
        url = server.url
    with pytest.raises(EmbedderFailedError, match=r"got ConnectError: .*is the endpoint up.*embedder_deadline"):
        EndpointEmbedder(url, "m", deadline=0.5, backoff=0.05).encode(["x"])


def test_an_endpoint_that_comes_up_while_it_is_asked():
    server = EmbeddingServer()
    with server:
        port = server._server.server_port
    late = threading.Timer(0.5, lambda: server_on(port, server))
    late.start()
    np.testing.assert_array_equal(
        EndpointEmbedder(f"http://127.0.0.1:{port}/v1", "m", backoff=0.05, deadline=20).encode(TEXTS), expected()
    )
    server.__exit__()


def server_on(port, server):
    """Start the server again on the port it had."""
    import http.server

    class Again(http.server.ThreadingHTTPServer):
        def __init__(self, _, handler):
            super().__init__(("127.0.0.1", port), handler)

    import embedding_server

    stock, embedding_server.ThreadingHTTPServer = embedding_server.ThreadingHTTPServer, Again
    try:
        server.__enter__()
    finally:
        embedding_server.ThreadingHTTPServer = stock


@pytest.mark.parametrize("slow", [{"delay": 3.0}, {"body": b"x" * 300, "drip": 0.01}], ids=["silent", "dripping"])
def test_an_attempt_that_takes_too_long_is_given_up_and_tried_again(slow):
    with EmbeddingServer(Reply(200, **slow)) as server:
        begun = time.monotonic()
        np.testing.assert_array_equal(client(server, timeout=0.5).encode(TEXTS), expected())
        assert time.monotonic() - begun < 2.5


def test_an_answer_that_breaks_off_is_asked_for_again():
    with EmbeddingServer(Reply(200, rows([1.0]), headers={"Content-Encoding": "gzip"})) as server:
        np.testing.assert_array_equal(client(server).encode(TEXTS), expected())


# ---- batches that are too large


@pytest.mark.parametrize("refusal", [400, 413, 422])
@pytest.mark.parametrize("limit", [{"most": 3}, {"longest": 12}])
def test_a_batch_that_is_too_large_is_split(refusal, limit):
    texts = (
        [f"text {number}" for number in range(11)] if "most" in limit else ["a" * 6, "b" * 12, "c", "d" * 11, "e", "f"]
    )
    with EmbeddingServer(refusal=refusal, shuffle=True, **limit) as server:
        embedder = client(server)
        np.testing.assert_array_equal(embedder.encode(texts), expected(texts))
        first = len(server.requests)
        np.testing.assert_array_equal(embedder.encode(texts), expected(texts))
    assert len(server.requests) - first < first  # the second time it knows


def test_one_text_that_is_too_long_is_an_error_that_says_so():
    with EmbeddingServer(longest=20) as server:
        with pytest.raises(
            EmbedderFailedError, match=r"status 413.*too long.* single text of 21 characters; .*longer window"
        ):
            client(server).encode(["short", "x" * 21, "short too"])
        assert client(server).encode(["short"]).shape == (1, 6)


def test_a_bad_request_of_another_cause_costs_few_requests():
    refused = pytest.raises(EmbedderFailedError, match="status 400: 'unknown field'")
    with EmbeddingServer(always=Reply(400, "unknown field")) as server, refused:
        client(server).encode([str(number) for number in range(64)])
    assert server.sizes == [64, 32, 16, 8, 4, 2, 1]
