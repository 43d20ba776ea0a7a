"""Routes, token, limits of bodies, metrics and logs."""

import json
import logging
import threading
import time

import pytest
from served import Served, error, question, until

from tars_rewards.server.logs import JsonLines

TOKEN = "s3cret-token"
MIB = 2**20


@pytest.fixture
def server(scorer):
    scorer.go.set()
    with Served(scorer, max_body_bytes=MIB, max_buffered_bytes=MIB, body_timeout=0.5) as server:
        yield server


@pytest.fixture
def guarded(scorer, monkeypatch):
    monkeypatch.setenv("TARS_REWARDS_TOKEN", TOKEN)
    scorer.go.set()
    with Served(scorer) as server:
        yield server


def head(path="/v1/rewards", **headers):
    lines = {"Host": "x", "Content-Type": "application/json", **headers}
    return f"POST {path} HTTP/1.1\r\n{''.join(f'{name}: {value}{chr(13)}{chr(10)}' for name, value in lines.items())}\r\n".encode()


def status_line(connection):
    received = b""
    while b"\r\n" not in received and (part := connection.recv(4096)):
        received += part
    return received.split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/v1/rewards", "/reward", "/metrics", "/nothing", "/docs"])
def test_without_the_token_nothing_but_health_is_answered(guarded, path):
    method = "POST" if path in ("/v1/rewards", "/reward") else "GET"
    for given in (None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer", "Bearer \xe4"):
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        refused = guarded.client.request(method, path, headers=headers, content=b"{}")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert error(refused)[0] == "unauthorized"
        assert TOKEN not in refused.text
    assert guarded.client.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code != 401


def test_with_the_token_requests_are_answered(guarded):
    assert guarded.ask(question(0), Authorization=f"Bearer {TOKEN}").status_code == 200
    assert guarded.ask(question(0), Authorization=f"bearer {TOKEN}").status_code == 200
    assert guarded.ask(question(0)).status_code == 401
    assert guarded.client.get("/healthz").json() == {"status": "ready"}
    assert guarded.client.get("/readyz").status_code == 200


def test_metrics_may_be_open(scorer, monkeypatch):
    monkeypatch.setenv("TARS_REWARDS_TOKEN", TOKEN)
    with Served(scorer, open_metrics=True) as server:
        assert server.client.get("/metrics").status_code == 200
        assert server.ask(question(0)).status_code == 401


def test_metrics_count_what_happened(server):
    server.ask(question(0), question(1))
    server.client.post("/v1/rewards", content=b"{", headers={"Content-Type": "application/json"})
    server.client.get("/nothing/of/the/kind")
    page = server.client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = page.text.splitlines()
    for line in (
        'tars_rewards_requests_total{route="/v1/rewards",status="200"} 1.0',
        'tars_rewards_requests_total{route="/v1/rewards",status="400"} 1.0',
        'tars_rewards_requests_total{route="other",status="404"} 1.0',
        'tars_rewards_request_seconds_count{route="/v1/rewards"} 2.0',
        'tars_rewards_errors_total{type="bad_json"} 1.0',
        'tars_rewards_errors_total{type="not_found"} 1.0',
        "tars_rewards_questions_total 2.0",
        "tars_rewards_completions_total 4.0",
        "tars_rewards_batch_questions_count 1.0",
        "tars_rewards_queue_questions 0.0",
        "tars_rewards_queue_completions 0.0",
        "tars_rewards_buffered_bytes 0.0",
        "tars_rewards_ready 1.0",
    ):
        assert line in lines
    assert server.metric("scoring_seconds_total") > 0


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/rewards", 405, "method_not_allowed"),
        ("POST", "/v1/rewards/", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
    ],
)
def test_what_is_not_there_is_said_in_the_same_form(server, method, path, status, kind):
    answer = server.client.request(method, path)
    assert (answer.status_code, error(answer)[0]) == (status, kind)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),  # what a page of another site can send to a server on loopback
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_a_body_is_json_by_its_headers(server, headers, status):
    assert server.client.post("/v1/rewards", content=b'{"questions": []}', headers=headers).status_code == status


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(server):
    with server.raw() as connection:
        connection.sendall(head(**{"Content-Length": 50 * MIB}))
        assert b" 413 " in status_line(connection)
    assert server.metric("errors_total", type="too_large") == 1


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large(server):
    sent = 0
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with server.raw() as connection:
        connection.settimeout(0.02)
        connection.sendall(head(**{"Transfer-Encoding": "chunked"}))
        received = b""
        while not received and sent < 50 * MIB:
            try:
                connection.sendall(chunk)
                sent += len(chunk)
                received = connection.recv(4096)
            except TimeoutError:
                continue
    assert b" 413 " in received.split(b"\r\n")[0]
    assert MIB < sent < 3 * MIB
    until(lambda: server.metric("buffered_bytes") == 0)


def test_a_body_that_fits_may_be_chunked(server):
    parts = [b'{"questions"', b": []}"]
    answer = server.client.post("/v1/rewards", content=iter(parts), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def test_a_body_that_does_not_arrive_is_not_waited_for(server):
    with server.raw() as connection:
        connection.sendall(head(**{"Content-Length": 100}) + b'{"questions"')
        until(lambda: server.metric("buffered_bytes") == 12)
        assert b" 408 " in status_line(connection)
    until(lambda: server.metric("buffered_bytes") == 0)


def test_the_bytes_of_all_requests_together_have_a_limit(server):
    with server.raw() as connection:
        connection.sendall(head(**{"Content-Length": MIB}) + b" " * (MIB - 10))
        until(lambda: server.metric("buffered_bytes") == MIB - 10)
        refused = server.ask(question(0))
        assert (refused.status_code, error(refused)[0]) == (429, "busy")
        assert refused.headers["retry-after"] == "1"
    until(lambda: server.metric("buffered_bytes") == 0)
    assert server.ask(question(0)).status_code == 200


def test_a_large_body_does_not_hold_up_others(scorer):
    """Five million numbers take a second to read."""
    scorer.go.set()
    body = b'{"questions": [{"id": "q", "audio": {"sampling_rate": 48000, "array": [' + b"0.5, " * 5_000_000 + b"1]}}]}"
    with Served(scorer, max_audio_seconds=200) as server:
        durations = []
        done = threading.Event()

        def ping():
            while not done.is_set():
                begun = time.perf_counter()
                server.client.get("/healthz")
                durations.append(time.perf_counter() - begun)

        thread = threading.Thread(target=ping)
        thread.start()
        begun = time.perf_counter()
        answer = server.client.post("/v1/rewards", content=body, headers={"Content-Type": "application/json"})
        seconds = time.perf_counter() - begun
        done.set()
        thread.join()
    assert answer.status_code == 422  # no completions
    # Without the care that is taken others wait for half of it.
    assert max(durations) < 0.25 * seconds


def test_while_the_model_loads_requests_are_refused_and_health_is_answered():
    loading = threading.Event()

    def make():
        assert loading.wait(20)
        raise OSError("no such model")

    with Served(None, make=make, ready=False) as server:
        assert server.client.get("/healthz").json() == {"status": "loading"}
        assert server.client.get("/readyz").status_code == 503
        refused = server.ask(question(0))
        assert (refused.status_code, error(refused)[0], refused.headers["retry-after"]) == (503, "loading", "5")
        loading.set()
        until(lambda: server.client.get("/healthz").status_code == 500)
        assert server.client.get("/readyz").json() == {"status": "failed"}
        assert isinstance(server.service.failure, OSError)


def test_refusals_are_logged_but_for_those_that_anyone_can_cause(server, caplog):
    caplog.set_level(logging.INFO, "tars_rewards.server")
    server.client.post("/v1/rewards", json={"questions": [question(0, audio="/etc/passwd")]})
    server.client.get("/nothing")
    (record,) = (record for record in caplog.records if record.getMessage() == "refused")
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["status"], line["field"]) == ("warning", 422, "questions[0].audio")
    assert "passwd" not in line["message"]


def test_requests_are_logged_on_demand(scorer, caplog):
    caplog.set_level(logging.INFO, "tars_rewards.server")
    with Served(scorer, log_requests=True) as server:
        server.client.get("/healthz?secret=1")
    record = next(record for record in caplog.records if record.getMessage() == "request")
    assert record.fields["route"] in ("/readyz", "/healthz")
    assert record.fields["status"] in (200, 503)


def test_a_log_line_is_one_line_whatever_is_in_it():
    record = logging.LogRecord("x", logging.INFO, "", 0, "a\nb", None, None)
    record.fields = {"message": "c\nd" + "e" * 5000}
    line = JsonLines().format(record)
    assert "\n" not in line
    assert len(json.loads(line)["message"]) == 2000
