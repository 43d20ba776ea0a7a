"""`sample`, `score` and `inspect` with a tiny Speech LLM, one after the other, against the Python API."""

import json

import pyarrow.parquet as pq
import pytest
from program import start, write

from tars_rewards import Scorer, TARSConfig

CONFIG = TARSConfig(beta=0, layers=(0, -1), center=True)
FLAGS = ("--beta", "0", "--layers", "0", "-1", "--center")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tiny_models import make_qwen2_audio

    return make_qwen2_audio(tmp_path_factory.mktemp("model"))


@pytest.fixture
def questions(tmp_path, clips):
    rows = [
        {"id": f"q{number}", "prompt": "which word?", "audio": str(clip), "answer": "B"}
        for number, clip in enumerate(clips[:2])
    ]
    return write(tmp_path / "questions.jsonl", rows)


def test_sampled_and_scored_like_in_python(call, model, questions, tmp_path):
    rollouts, rewards = tmp_path / "rollouts.jsonl", tmp_path / "rewards.parquet"
    common = ("--model", model, "--no-progress", "--instruction", "Answer.")
    code, out, err = call(
        "sample", questions, "--out", rollouts, *common, "-n", "2", "--max-new-tokens", "6", "--seed", "3"
    )
    assert (code, out) == (0, "")
    assert f"sampled for 2 questions, 2 rows in {rollouts}; " in err
    scorer = Scorer(model, config=CONFIG, instruction="Answer.")
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    sampled = [each.to_row() for each in scorer.sample(rows, n=2, max_new_tokens=6, seed=3)]
    assert [json.loads(line) for line in rollouts.read_text().splitlines()] == json.loads(json.dumps(sampled))

    # Judged right, so that there are references.
    for row in sampled:
        row["completions"]["text"][0]["correct"] = True
    write(rollouts, sampled)
    code, out, err = call("score", rollouts, "--out", rewards, *common, *FLAGS)
    assert (code, out) == (0, "")
    expected = [row for scored in scorer.score(sampled) for row in scored.rows()]
    assert pq.read_table(rewards).to_pylist() == expected
    assert any(row["representation"] is not None for row in expected)

    code, out, _ = call("inspect", rewards, "--id", "q1", "--full")
    assert code == 0
    assert "← chosen by speech #" in out


def test_standard_output_is_data_only(model, questions):
    with start("sample", "-", "--out", "-", "--model", model, "-n", "1", "--max-new-tokens", "3") as process:
        out, said = process.communicate(questions.read_text())
    assert process.returncode == 0, said
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], {name: len(each) for name, each in row["completions"].items()}) for row in rows] == [
        (name, {"speech": 1, "text": 1}) for name in ("q0", "q1")
    ]
    assert "sampled for 2 questions" in said


def test_a_model_of_no_known_family(call, questions, tmp_path):
    from tiny_models import make_text_model

    code, out, err = call("score", questions, "--out", "-", "--model", make_text_model(tmp_path / "text"))
    assert (code, out) == (1, "")
    assert "register_family" in err
    assert "Traceback" not in err


def test_a_model_that_is_not_there(call, questions, tmp_path):
    code, out, err = call("score", questions, "--out", "-", "--model", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere" in err
    assert "Traceback" not in err
