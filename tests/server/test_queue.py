"""Concurrent requests: scored together, in bounds, each with its own answer; with a scorer that is held back."""

import pytest
import torch
from served import Served, error, plain_scorer, question, until


def held(server, scorer, *rows):
    """Let the scorer begin with these rows, so that what comes later waits."""
    answer = server.later(*(rows or [question(0)]))
    assert scorer.begun.acquire(timeout=10)
    return answer


def ids(response):
    return [[row["id"] for row in rows] for rows in response.json()["rewards"]]


def test_what_waits_is_scored_together_and_everyone_gets_their_own(scorer):
    with Served(scorer) as server:
        first = held(server, scorer)
        later = [server.later(question(number)) for number in range(1, 11)]
        until(lambda: server.waiting() == 10)
        scorer.go.set()
        assert ids(first()) == [["q0", "q0"]]
        for number, answer in enumerate(later, 1):
            (rows,) = answer().json()["rewards"]
            assert [row["id"] for row in rows] == [f"q{number}"] * 2
            assert rows[1]["completion"].startswith(f"{number} <think>")
            assert [row["total"] for row in rows] == [1.5, 1.0]
        assert [len(batch) for batch in scorer.batches] == [1, 10]
        assert server.metric("batch_questions_sum") == 11
        assert server.metric("completions_total") == 22


def test_the_answer_is_what_the_python_api_gives_in_the_order_of_the_questions(scorer):
    scorer.go.set()
    rows = [question(number, answer=str(number)) for number in range(5)]
    with Served(scorer) as server:
        answer = server.ask(*rows)
    assert answer.status_code == 200
    assert answer.json()["rewards"] == [scored.rows() for scored in plain_scorer().score(rows)]
    assert answer.json()["scorer"]["config"]["alpha"] == 0


def test_a_batch_has_a_limit_of_completions_and_of_questions(scorer):
    with Served(scorer, batch_completions=5, batch_questions=3) as server:
        answers = [held(server, scorer)]
        answers += [server.later(question(1)), server.later(question(2))]
        until(lambda: server.waiting() == 2)
        answers.append(server.later(*(question(number, completions={"text": ["a"]}) for number in range(3, 7))))
        until(lambda: server.waiting() == 6)
        big = question(7, completions={"text": ["a"] * 9})
        answers.append(server.later(big))
        until(lambda: server.waiting() == 7)
        scorer.go.set()
        assert all(answer().status_code == 200 for answer in answers)
    assert [len(batch) for batch in scorer.batches] == [1, 3, 3, 1]
    assert sorted(scorer.batches[1][:2]) == ["q1", "q2"]
    assert scorer.batches[-1] == ["q7"]


def test_equal_ids_of_different_clients_do_not_meet(scorer):
    with Served(scorer) as server:
        held(server, scorer)
        answers = [server.later(question(1, answer=answer)) for answer in ("4", "5", "6")]
        until(lambda: server.waiting() == 3)
        scorer.go.set()
        totals = [answer().json()["rewards"][0][0]["total"] for answer in answers]
    assert totals == [1.5, 0.5, 0.5]
    assert len(scorer.batches) == 2


@pytest.mark.parametrize(
    ("bad", "status", "kind", "field"),
    [
        (question(1, answer=None), 422, "invalid", "questions[1].answer"),
        (question(1, prompt="explode"), 500, "internal", "questions[1]"),
    ],
    ids=["unanswerable", "a defect"],
)
def test_a_bad_question_does_not_take_others_down(scorer, bad, status, kind, field):
    with Served(scorer) as server:
        held(server, scorer)
        wrong, right = server.later(question(2), bad), server.later(question(3))
        until(lambda: server.waiting() == 3)
        scorer.go.set()
        assert wrong().status_code == status
        assert error(wrong())[:2] == (kind, field)
        assert ids(right()) == [["q3", "q3"]]
        assert server.metric("questions_failed_total") == 1
        assert server.metric("errors_total", type=kind) == 1


def test_what_a_failed_request_still_had_waiting_is_dropped(scorer):
    with Served(scorer, batch_questions=1) as server:
        answer = held(server, scorer, question(0, answer=None), *(question(number) for number in range(1, 50)))
        scorer.go.set()
        assert answer().status_code == 422
    assert scorer.scored() == ["q0"]
    assert server.metric("questions_dropped_total") == 49


@pytest.mark.parametrize("settings", [{"queue_questions": 4}, {"queue_completions": 8}])
def test_a_full_queue_refuses_whole_requests_and_says_when_to_come_again(scorer, settings):
    limits = {"max_questions": 4, "max_completions": 8, **settings}
    with Served(scorer, **limits) as server:
        accepted = [held(server, scorer), server.later(*(question(number) for number in range(1, 4)))]
        until(lambda: server.waiting() == 3)
        refused = server.ask(question(4), question(5))
        assert refused.status_code == 429
        assert error(refused)[0] == "queue_full"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        accepted.append(server.later(question(6)))
        until(lambda: server.waiting() == 4)
        assert server.metric("queue_questions") == 4
        assert server.metric("queue_completions") == 8
        scorer.go.set()
        assert all(answer().status_code == 200 for answer in accepted)
        assert server.metric("requests_total", route="/v1/rewards", status="429") == 1
    assert sorted(scorer.scored()) == ["q0", "q1", "q2", "q3", "q6"]


def test_retry_after_follows_the_recent_rate(scorer):
    with Served(scorer, queue_completions=8, max_completions=8) as server:
        server.service._queue.observe(10, 20.0)  # half a completion a second
        accepted = [held(server, scorer), server.later(*(question(number) for number in range(1, 5)))]
        until(lambda: server.waiting() == 4)
        assert server.ask(question(5), question(6)).headers["retry-after"] == "8"  # room for 4 completions
        assert server.ask(question(5)).headers["retry-after"] == "4"
        scorer.go.set()
        assert all(answer().status_code == 200 for answer in accepted)


def test_a_request_that_comes_as_the_scorers_thread_dies_is_refused_at_once(scorer, monkeypatch):
    with Served(scorer, request_timeout=5) as server:
        put = server.service._queue.put

        def put_and_die(job):
            put(job)
            server.service._failed(ZeroDivisionError("as if by a defect"))

        monkeypatch.setattr(server.service._queue, "put", put_and_die)
        assert server.ask(question(0)).status_code == 503


def test_a_request_that_takes_too_long_is_given_up_and_its_questions_are_not_scored(scorer):
    with Served(scorer, request_timeout=0.3) as server:
        held(server, scorer)
        late = server.ask(question(1), question(2))
        assert late.status_code == 504
        assert error(late)[0] == "timeout"
        assert server.waiting() == 0
        assert server.metric("questions_dropped_total") == 2
        scorer.go.set()
        assert server.ask(question(3)).status_code == 200
    assert scorer.scored() == ["q0", "q3"]


def test_a_client_that_went_away_is_not_worked_for(scorer):
    with Served(scorer) as server:
        held(server, scorer)
        request = server.client.build_request("POST", "/v1/rewards", json={"questions": [question(1)]})
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        with server.raw() as connection:
            connection.sendall(f"POST /v1/rewards HTTP/1.1\r\n{head}\r\n".encode() + request.content)
            until(lambda: server.waiting() == 1)
        until(lambda: server.waiting() == 0)
        until(lambda: server.metric("requests_total", route="/v1/rewards", status="499") == 1)
        scorer.go.set()
        assert server.ask(question(2)).status_code == 200
    assert scorer.scored() == ["q0", "q2"]


def test_a_stopping_server_accepts_nothing_and_finishes_what_it_accepted(scorer):
    with Served(scorer) as server:
        accepted = [held(server, scorer), server.later(question(1))]
        until(lambda: server.waiting() == 1)
        server.service.stop()
        refused = server.ask(question(2))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert error(refused)[0] == "stopping"
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/healthz").status_code == 200
        scorer.go.set()
        assert [ids(answer()) for answer in accepted] == [[["q0", "q0"]], [["q1", "q1"]]]
    assert scorer.scored() == ["q0", "q1"]


def test_a_failed_accelerator_ends_the_service_and_nobody_waits_for_it(scorer):
    with Served(scorer) as server:
        answers = [held(server, scorer, question(0, prompt="break the accelerator")), server.later(question(1))]
        until(lambda: server.waiting() == 1)
        scorer.go.set()
        assert [answer().status_code for answer in answers] == [503, 503]
        assert server.client.get("/healthz").status_code == 500
        assert server.client.get("/readyz").json() == {"status": "failed"}
        assert isinstance(server.service.failure, torch.AcceleratorError)


def test_a_request_without_questions_has_an_answer_without_rewards(scorer):
    with Served(scorer) as server:
        assert server.ask().json()["rewards"] == []
