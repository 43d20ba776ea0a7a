"""The engine at an endpoint: what it asks, what it makes of the answer, and of every way to fail."""

import logging
import pickle
import socket
import time

import numpy as np
import pytest
from chat_server import ChatServer, Reply, clip, completion, user_turn

from tars_rewards import Question
from tars_rewards.errors import ConfigError, InputError, ScoringError
from tars_rewards.evaluation.engine import Generated
from tars_rewards.evaluation.engine_endpoint import EndpointEngine
from tars_rewards.scoring.sampling import Sampling

GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=32)
BOTH = ("speech", "text")
RIGHT = "<think>so</think><answer>The answer is B.</answer>"
KEY = "sk-very-secret-0123"


def samples(seconds=0.5, rate=16000, amplitude=0.3):
    return amplitude * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)


def question(number=0, **changes):
    audio = {"array": samples(), "sampling_rate": 16000}
    return Question(**{"id": f"q{number}", "prompt": f"What is {number}?", "audio": audio, "answer": "B", **changes})


def engine(server, **options):
    return EndpointEngine(server.url, "tiny", **{"backoff": 0.01, "deadline": 20, **options})


def test_a_spoken_and_a_written_question():
    with ChatServer() as server:
        [completions] = engine(server, system="Think.", instruction="Answer.").complete([question()], BOTH, GREEDY)
    assert completions == {"speech": [Generated(RIGHT, tokens=7)], "text": [Generated(RIGHT, tokens=7)]}
    spoken, written = sorted(server.requests, key=lambda request: isinstance(user_turn(request), str))
    for request in (spoken, written):
        assert request["messages"][0] == {"role": "system", "content": "Think."}
        assert [message["role"] for message in request["messages"]] == ["system", "user"]
        assert {name: request[name] for name in ("model", "temperature", "top_p", "max_tokens")} == {
            "model": "tiny", "temperature": 0.0, "top_p": 1.0, "max_tokens": 32,
        }  # fmt: skip
    assert user_turn(written) == "What is 0?\nAnswer."
    assert user_turn(spoken)[1] == {"type": "text", "text": "Answer."}
    heard, rate = clip(spoken)
    assert rate == 16000
    np.testing.assert_allclose(heard, samples(), atol=2 / 2**15)


def test_a_question_has_its_own_system_prompt_and_instruction():
    with ChatServer() as server:
        engine(server, system="Think.", instruction="Answer.").complete(
            [question(system="", instruction="Now.")], ["text"], GREEDY
        )
    assert server.requests[0]["messages"] == [{"role": "user", "content": "What is 0?\nNow."}]


def test_a_clip_of_another_rate_with_two_channels(tmp_path):
    import soundfile

    stereo = np.stack([samples(1.0, 44100), samples(1.0, 44100)], axis=1)
    soundfile.write(tmp_path / "a.flac", stereo, 44100)
    with ChatServer() as server:
        engine(server).complete([question(audio=str(tmp_path / "a.flac"))], ["speech"], GREEDY)
    heard, rate = clip(server.requests[0])
    assert (heard.ndim, rate, len(heard)) == (1, 16000, 16000)


def test_a_clip_beyond_full_scale_is_not_clipped():
    with ChatServer() as server:
        audio = {"array": samples(amplitude=3.0), "sampling_rate": 16000}
        engine(server).complete([question(audio=audio)], ["speech"], GREEDY)
    np.testing.assert_allclose(clip(server.requests[0])[0], samples(amplitude=1.0), atol=1e-3)


def test_samples_of_a_question_have_seeds_of_their_own_and_keep_them():
    sampling = Sampling(n=3, temperature=1.0, seed=5)
    seeds = []
    for _ in range(2):
        with ChatServer() as server:
            engine(server, concurrency=1).complete([question(0), question(1)], BOTH, sampling)
        seeds.append([request["seed"] for request in server.requests])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 12
    assert all(0 <= seed < 2**31 for seed in seeds[0])


def test_results_are_in_the_order_of_the_questions_however_they_come():
    def slow_at_first(request):
        number = int(user_turn(request).split()[-1].rstrip("?"))
        return Reply(200, completion(f"{number}"), delay=0.2 if number < 3 else 0)

    with ChatServer(always=slow_at_first) as server:
        results = engine(server, concurrency=4).complete([question(n) for n in range(8)], ["text"], GREEDY)
    assert [result["text"][0].text for result in results] == [str(number) for number in range(8)]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_not_more_requests_at_a_time_than_allowed(concurrency):
    with ChatServer(delay=0.05) as server:
        engine(server, concurrency=concurrency).complete([question(n) for n in range(9)], ["text"], GREEDY)
    assert server.most == concurrency


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (completion("B", reason="length", tokens=32), Generated("B", truncated=True, tokens=32)),
        (completion("B", reason="stop"), Generated("B", tokens=None)),
        (completion("", tokens=1), Generated("", tokens=1)),
        (completion("B", tokens=7).replace("7", '"many"', 1), Generated("B", tokens=None)),
    ],
)
def test_what_an_answer_says(body, expected):
    with ChatServer(Reply(200, body)) as server:
        [completions] = engine(server).complete([question()], ["text"], GREEDY)
    assert completions == {"text": [expected]}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_may_pass_is_retried(status):
    with ChatServer(Reply(status, "busy"), Reply(status, "busy")) as server:
        [completions] = engine(server).complete([question()], ["text"], GREEDY)
    assert completions["text"][0].text == RIGHT
    assert len(server.requests) == 3


def test_a_connection_that_breaks_is_retried():
    with ChatServer(Reply(200, "", {"Content-Length": "500"})) as server:
        # Two Content-Length headers: the client refuses the answer as broken.
        [completions] = engine(server).complete([question()], ["text"], GREEDY)
    assert completions["text"][0].text == RIGHT
    assert len(server.requests) == 2


def test_retry_after_is_kept_to():
    with ChatServer(Reply(429, "slow down", {"Retry-After": "1"})) as server:
        begin = time.monotonic()
        engine(server).complete([question()], ["text"], GREEDY)
    assert 1.0 <= time.monotonic() - begin < 6


def test_a_deadline_ends_it():
    with ChatServer(always=Reply(503, "loading")) as server:
        begin = time.monotonic()
        with pytest.raises(ScoringError, match=r"after \d+ attempts in .* \(deadline 0.5 s\)"):
            engine(server, deadline=0.5).complete([question()], ["text"], GREEDY)
        assert time.monotonic() - begin < 5
        assert len(server.requests) > 1


def test_a_wait_beyond_the_deadline_is_not_begun():
    with ChatServer(always=Reply(429, "later", {"Retry-After": "3600"})) as server:
        with pytest.raises(ScoringError, match="and to wait 3600 s, after 1 attempts"):
            engine(server, deadline=5).complete([question()], ["text"], GREEDY)
        assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [Reply(200, completion("B"), delay=3), Reply(200, completion("B"), drip=0.05)])
def test_an_answer_that_takes_too_long(reply):
    with ChatServer(reply) as server:
        begin = time.monotonic()
        [completions] = engine(server, timeout=0.3).complete([question()], ["text"], GREEDY)
    assert completions["text"][0].text == RIGHT
    assert time.monotonic() - begin < 3


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        nobody = EndpointEngine(url, "tiny", deadline=0.3, backoff=0.05)
        with pytest.raises(ScoringError, match=r"ConnectError.*is the endpoint up"):
            nobody.complete([question()], ["text"], GREEDY)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_refused_leaves_the_others_alone(status):
    def refuse(request):
        return Reply(status, '{"error": "audio too long"}') if "What is 1" in str(user_turn(request)) else None

    with ChatServer(always=refuse) as server:
        first, second, third = engine(server).complete([question(n) for n in range(3)], ["text"], GREEDY)
    assert isinstance(second, ScoringError)
    assert f"question 'q1': expected a completion by 'tiny' from {server.url}, got status {status}" in str(second)
    assert "audio too long" in str(second)
    assert first["text"][0].text == third["text"][0].text == RIGHT
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_an_endpoint_that_refuses_everything_stops_the_run(status):
    with ChatServer(always=Reply(status, "go away")) as server:
        with pytest.raises(ScoringError, match=f"status {status}: 'go away'; check the URL, the model's name"):
            engine(server, concurrency=1).complete([question(n) for n in range(20)], ["text"], GREEDY)
        assert len(server.requests) < 20


@pytest.mark.parametrize(
    "body",
    [
        "<html>welcome</html>", "", "[]", "{}", '{"choices": 5}', '{"choices": [{}]}', '{"choices": [{"message": "B"}]}',
        '{"choices": [{"message": {"content": ["B"]}}]}', b"\xff\xfe\x00",
    ],
)  # fmt: skip
def test_something_else_than_an_answer(body):
    with (
        ChatServer(Reply(200, body)) as server,
        pytest.raises(ScoringError, match="does the URL lead to an OpenAI-compatible chat endpoint"),
    ):
        engine(server).complete([question()], ["text"], GREEDY)


@pytest.mark.parametrize("body", ['{"choices": []}', '{"choices": [{"message": {"content": null}}]}'])
def test_an_answer_without_a_text_is_the_questions_error(body):
    with ChatServer(Reply(200, body)) as server:
        first, second = engine(server, concurrency=1).complete([question(0), question(1)], ["text"], GREEDY)
    assert isinstance(first, ScoringError)
    assert "question 'q0': expected a completion by 'tiny'" in str(first)
    assert "got an answer without a text" in str(first)
    assert second["text"][0].text == RIGHT


def test_a_clip_that_cannot_be_read_is_the_questions_error(tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    with ChatServer() as server:
        first, second = engine(server).complete([question(0, audio=str(tmp_path / "a.wav")), question(1)], BOTH, GREEDY)
    assert isinstance(first, InputError)
    assert "question 'q0':" in str(first)
    assert "a.wav cannot be read" in str(first)
    assert set(second) == {"speech", "text"}


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CHAT_KEY", KEY)
    with ChatServer() as server:
        made = engine(server, api_key_var="CHAT_KEY")
        made.complete([question()], ["text"], GREEDY)
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        server.always = Reply(401, f"bad key {KEY}")
        with pytest.raises(ScoringError, match=r"bad key \[API key\]") as caught:
            made.complete([question()], ["text"], GREEDY)
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in str(made.settings())
    assert KEY not in repr(made)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_no_key_is_sent_without_a_variable():
    with ChatServer() as server:
        engine(server).complete([question()], ["text"], GREEDY)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"api_key_var": "NO_SUCH_KEY_HERE"}, "NO_SUCH_KEY_HERE, which in this process is not set"),
        ({"api_key_var": "sk-123"}, "must be the name of an environment variable"),
        ({"concurrency": 0}, "concurrency is 0; expected an integer of at least 1"),
        ({"deadline": 0}, "deadline is 0; expected a positive number"),
        ({"url": "host:8000/v1"}, "url must be the http"),
        ({"url": "http://host/v1/chat/completions"}, "url must be the http"),
        ({"url": f"http://me:{KEY}@host/v1"}, "got one with a user"),
        ({"url": f"http://host/v1?key={KEY}"}, "got one with a user, a query"),
    ],
)
def test_settings_that_cannot_be(options, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        EndpointEngine(**{"url": "http://host/v1", "model": "tiny", **options})
    assert KEY not in str(caught.value)
    assert "sk-123" not in str(caught.value)
