"""`tars-rewards serve`: flags reach the server, and the process answers and stops."""

import json
import signal

import httpx
import pytest
from program import question, start

from tars_rewards import Scorer, TARSConfig, server
from tars_rewards.cli import parse
from tars_rewards.errors import ConfigError

BASE_ONLY = ("--alpha", "0", "--beta", "0")


def test_flags_of_server_and_reward():
    command = parse(
        ["serve", "--port", "0", "--max-questions", "3", "--open-metrics", "--special-tokens", "<a>", "<b>"]
    )
    settings = command.settings
    assert (settings.port, settings.max_questions, settings.open_metrics, settings.special_tokens) == (
        0,
        3,
        True,
        ("<a>", "<b>"),
    )
    assert command.reward == TARSConfig()
    with pytest.raises(ConfigError, match="port must be at most 65535"):
        parse(["serve", "--port", "70000"])


def test_without_the_extra_a_sentence_says_how_to_get_it(call, hide, monkeypatch):
    monkeypatch.delitem(vars(server), "run", raising=False)  # where other tests have looked it up already
    hide("uvicorn")
    code, out, err = call("serve", "--port", "0", *BASE_ONLY)
    assert (code, out) == (1, "")
    assert err.startswith("tars-rewards: ")
    assert "pip install 'tars-rewards[serve]'" in err
    assert err.count("\n") == 1


def test_it_answers_as_the_python_api_and_stops_at_a_signal():
    with start("serve", "--port", "0", *BASE_ONLY) as process:
        try:
            for line in process.stderr:
                event = json.loads(line) if line.startswith("{") else {"event": "a warning of a library"}
                if event["event"] == "listening":
                    url = event["url"]
                if event["event"] == "ready":
                    break
            answer = httpx.post(f"{url}/v1/rewards", json={"questions": [question(1)]})
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    scorer = Scorer(None, config=TARSConfig(alpha=0, beta=0))
    (scored,) = scorer.score([question(1)])
    totals = [row["total"] for row in scored.rows()]
    assert [row["total"] for row in answer.json()["rewards"][0]] == totals
