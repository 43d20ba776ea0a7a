"""What an endpoint may answer that is no embedding, and what it and the logs must not get to know."""

import logging
import pickle

import numpy as np
import pytest
from embedding_server import EmbeddingServer, Reply, rows, vector

from tars_rewards.embedding_endpoint import EndpointEmbedder
from tars_rewards.errors import ConfigError, EmbedderFailedError

TEXTS = ["one", "two", "three is longer", "vier", "ünf 五"]


def expected(texts=TEXTS):
    return np.stack([vector(text) for text in texts])


def client(server, **options):
    return EndpointEmbedder(server.url, "m", **{"backoff": 0.01, "deadline": 20, **options})


# ---- garbage


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>Welcome</html>", "got something else than JSON .*begins '<html>Welcome</html>'; does embedder_url"),
        ("", "got something else than JSON .*begins ''"),
        ("[]", "something else than JSON"),
        ("null", "something else than JSON"),
        ('{"data": null}', "something else than JSON"),
        ('{"embeddings": []}', "something else than JSON"),
        ('{"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}', "something else than JSON"),
        ('{"data": [{"index": [], "embedding": [1.0]}]}', "something else than JSON"),
        (rows([1.0]), "got 1 embeddings with the indices 0, not each index from 0 to 1 once"),
        (rows([1.0], [2.0], [3.0]), "got 3 embeddings with the indices 0, 1, 2, not each"),
        (rows([1.0], [2.0], indices=[1, 1]), "indices 1, 1, not each"),
        (rows([1.0], [2.0], indices=[1, 2]), "indices 1, 2, not each"),
        (rows([1.0], [2.0], [2.0], indices=[0, 1, 1]), "indices 0, 1, 1, not each"),
        (rows([1.0], [2.0, 3.0]), "makes no array of real numbers"),
        (rows(["a"], ["b"]), "makes no array of real numbers"),
        (rows([], []), "has shape"),
        (rows([1.0], [float("nan")]), "holds NaN or inf in row 1 of 2"),
        (rows([1e39], [1.0]), "holds NaN or inf in row 0 of 2"),
        (rows("!!", "!!"), "something else than JSON"),
        (rows("AACAPw", "AACAPw"), "something else than JSON"),
        (rows("AACA", "AACA"), "something else than JSON"),
        (rows([1.0] * 5, [2.0] * 5), "vectors of 5 values; expected 6 values; is another model"),
    ],
)
def test_garbage_is_refused_in_a_sentence_and_not_asked_for_again(body, message):
    with EmbeddingServer(None, Reply(200, body)) as server:
        embedder = client(server)
        embedder.encode(["first"])
        with pytest.raises(EmbedderFailedError, match=message):
            embedder.encode(["a", "b"])
    assert len(server.requests) == 2


def test_the_dimension_may_be_said_beforehand():
    with (
        EmbeddingServer() as server,
        pytest.raises(EmbedderFailedError, match="vectors of 6 values; expected 7 values"),
    ):
        client(server, dim=7).encode(["a"])


def test_a_long_answer_is_quoted_in_part():
    with EmbeddingServer(Reply(404, "x" * 10_000)) as server, pytest.raises(EmbedderFailedError) as caught:
        client(server).encode(["a"])
    assert len(str(caught.value)) < 800


# ---- the key


def test_the_key_is_sent_and_told_nobody(key, caplog):
    caplog.set_level(logging.DEBUG)
    echo = Reply(401, f"Incorrect API key: {key}{'x' * 400}")
    long = Reply(403, "y" * 290 + key)  # cut in the middle of the key, were it not taken out first
    with EmbeddingServer(None, echo, long, always=Reply(500, key)) as server:
        embedder = client(server, api_key_var="MY_KEY", deadline=1, backoff=2)
        embedder.encode(["a"])
        assert server.headers[0]["Authorization"] == f"Bearer {key}"
        said = [repr(embedder), embedder.model_id, str(vars(embedder)), str(pickle.dumps(embedder))]
        for _ in range(3):
            with pytest.raises(EmbedderFailedError) as caught:
                embedder.encode(["a"])
            said.append(str(caught.value))
    assert "Incorrect API key: [API key]" in said[4]
    assert not any(key[:9] in text for text in [*said, caplog.text])


@pytest.mark.parametrize(("value", "why"), [(None, "is not set"), ("", "is not set"), ("sk-1\n", "holds blanks")])
def test_a_key_that_is_none(monkeypatch, value, why):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match=f"environment variable MY_KEY, which in this process {why}") as caught:
        EndpointEmbedder("http://h/v1", "m", api_key_var="MY_KEY")
    assert "sk-1" not in str(caught.value)
