"""A real server with a tiny Speech LLM and 64 clients at once: nothing is lost, and everyone gets their own rewards."""

import copy
import os
import time

import httpx
import pytest
from serving import ServerProcess, check_crowd, crowd, make_rows, same_rows
from tiny_models import make_clips, make_qwen2_5_omni

from tars_rewards import Scorer, TARSConfig

SECONDS = float(os.environ.get("TARS_LOAD_SECONDS", "8"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_qwen2_5_omni(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_rows(make_clips(tmp_path_factory.mktemp("clips")), 48, samples=2)


@pytest.fixture(scope="module")
def expected(model, rows):
    scorer = Scorer(str(model), config=TARSConfig(beta=0), device="cpu")
    return [scored.rows() for scored in scorer.score(rows)]


@pytest.fixture(scope="module")
def answered(model, rows, expected, tmp_path_factory):
    with ServerProcess(model) as server:
        result = crowd(server.url, rows, tmp_path_factory.mktemp("crowd"), clients=64, seconds=SECONDS)
        time.sleep(0.1)
        result["metrics"] = httpx.get(f"{server.url}/metrics").text
        result["whole"] = httpx.post(f"{server.url}/v1/rewards", json={"questions": rows}, timeout=60).json()
        server.signal()
        result["exit"] = server.wait()
    return result


def test_nothing_is_lost_and_answers_are_those_of_the_python_api(answered, expected):
    check_crowd(answered, expected)
    assert len(answered["answers"]) >= 64
    assert {number for number, *_ in answered["answers"]} == set(range(len(expected)))
    assert answered["exit"] == 0


def test_questions_of_different_clients_were_scored_together(answered):
    values = dict(line.rsplit(" ", 1) for line in answered["metrics"].splitlines() if not line.startswith("#"))
    questions = float(values["tars_rewards_questions_total"])
    assert questions == len(answered["answers"])
    assert questions / float(values["tars_rewards_batch_questions_count"]) > 4
    assert float(values["tars_rewards_questions_failed_total"]) == 0


def test_a_request_of_many_questions_gets_them_in_order(answered, expected):
    rewards = answered["whole"]["rewards"]
    assert len(rewards) == len(expected)
    assert all(same_rows(mine, theirs) for mine, theirs in zip(rewards, expected, strict=True))
    assert answered["whole"]["scorer"]["model"].startswith("Qwen2.5-Omni")


def test_the_check_notices_lost_swapped_refused_and_changed_answers(answered, expected):
    """The clips and the texts differ, so that another question's rewards are not mistaken for its own."""

    def broken(change):
        result = {"sent": answered["sent"], "answers": copy.deepcopy(answered["answers"])}
        change(result["answers"])
        with pytest.raises(AssertionError, match=r"lost|not scored|not those of their question"):
            check_crowd(result, expected)

    def swap(answers):
        answers[0][2], answers[1][2] = answers[1][2], answers[0][2]

    def nudge(answers):
        answers[0][2]["rewards"][0][0]["total"] += 1e-4

    def refuse(answers):
        answers[0][1] = 429

    broken(lambda answers: answers.pop())
    broken(swap)
    broken(nudge)
    broken(refuse)


def test_the_clip_was_heard(rows, expected):
    """Speech rows carry a representation term, which needs the model's states of both modalities."""
    for row, scored in zip(rows, expected, strict=True):
        spoken = [each for each in scored if each["modality"] == "speech"]
        referenced = [each for each in spoken if each["reference"] is not None]
        assert all(0 < each["representation"] <= 1 for each in referenced)
        assert len(spoken) == len(row["completions"]["speech"])
    assert any(each["reference"] is not None for scored in expected for each in scored)
