"""The server as a process: signals, exit codes, what it refuses to start with."""

import json
import signal
import socket
import time

import httpx
import pytest
from served import in_thread, question, until
from serving import ServerProcess

from tars_rewards.errors import ConfigError
from tars_rewards.server import ServerSettings, run


def post(server, *rows):
    return httpx.post(f"{server.url}/v1/rewards", json={"questions": list(rows)}, timeout=60)


def outcome(server):
    """Status of the answer to a question; None where there was none."""
    try:
        return post(server, question(0)).status_code
    except httpx.HTTPError:
        return None


def no_scorer():
    raise AssertionError("the scorer is made although the server cannot start")


def statuses(answers):
    return [answer().status_code for answer in answers]


def test_a_signal_lets_accepted_requests_finish_and_refuses_others():
    # One question a batch, half a second each: four requests are accepted and take two seconds.
    with ServerProcess(None, settings={"batch_questions": 1}, seconds_a_batch=0.5) as server:
        accepted = [in_thread(lambda index=index: post(server, question(index))) for index in range(4)]
        until(lambda: server.metric("tars_rewards_queue_questions") == 3)
        server.signal(signal.SIGTERM)
        server.expect("stopping")
        refused = post(server, question(9))
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert statuses(accepted) == [200] * 4
        assert server.wait() == 0
        assert server.expect("stopped")["all_answered"] is True


def test_after_the_grace_period_what_is_left_is_answered_and_the_exit_code_tells():
    with ServerProcess(None, settings={"grace_seconds": 0.5}, seconds_a_batch=20) as server:
        answer = in_thread(lambda: post(server, question(0)))
        until(lambda: server.metric("tars_rewards_batch_questions_count") == 1)
        server.signal()
        assert answer().status_code == 503
        assert server.wait(10) == 1
        assert server.expect("stopped")["all_answered"] is False


def test_a_second_signal_ends_it():
    with ServerProcess(None, settings={"grace_seconds": 60}, seconds_a_batch=60) as server:
        abandoned = in_thread(lambda: outcome(server))
        until(lambda: server.metric("tars_rewards_batch_questions_count") == 1)
        server.signal()
        server.expect("stopping")
        server.signal()
        assert server.wait(10) == 1
        assert abandoned() != 200


def test_a_server_that_loads_can_be_stopped():
    with ServerProcess(None, wait=0, seconds_to_load=60) as server:
        assert post(server, question(0)).status_code == 503
        assert httpx.get(f"{server.url}/readyz").json() == {"status": "loading"}
        server.signal()
        assert server.wait(10) == 0


def test_a_model_that_cannot_be_loaded_ends_it_with_the_cause(tmp_path):
    with ServerProcess(tmp_path / "nowhere", wait=0) as server:
        assert server.wait(60) == 1
        entry = server.expect("the scorer's thread ended")
    assert "nowhere" in entry["traceback"]
    assert "nowhere" in "".join(server.lines).splitlines()[-1]  # raised to the caller too


def test_an_open_address_without_a_token_is_refused(monkeypatch):
    monkeypatch.delenv("TARS_REWARDS_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="can be reached from other machines, and there is no token"):
        run(no_scorer, ServerSettings(host="0.0.0.0"))


def test_an_address_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*; choose another port"):
            run(no_scorer, ServerSettings(port=port))


def test_an_idle_server_stops_at_once_and_its_log_is_lines_of_json_without_the_token():
    with ServerProcess(None, variables={"TARS_REWARDS_TOKEN": "s3cret"}) as server, httpx.Client() as client:
        url = f"{server.url}/v1/rewards"
        body = {"questions": [question(0, audio="/etc/passwd")]}
        assert client.post(url, json=body).status_code == 401
        assert client.post(url, json=body, headers={"Authorization": "Bearer s3cret"}).status_code == 422
        begun = time.monotonic()
        server.signal(signal.SIGINT)  # with the client's connection still open
        assert server.wait() == 0
        assert time.monotonic() - begun < 5
    lines = [json.loads(line) for line in server.lines]
    assert [line["event"] for line in lines] == ["listening", "ready", "refused", "stopping", "stopped"]
    assert "s3cret" not in "".join(server.lines)
