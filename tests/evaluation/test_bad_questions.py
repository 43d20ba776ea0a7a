"""Bad questions: all told before anything is asked, or left out and named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import Reply, completion, user_turn
from evaluating import own_file, results
from voicebench import MMSU, mmsu_row, write

from tars_rewards.errors import InputError
from tars_rewards.evaluation import evaluate
from tars_rewards.evaluation.evaluate import run


def bad_mmsu(tmp_path):
    rows = [
        mmsu_row(0),
        mmsu_row(1, audio={"bytes": b"no sound", "path": None}),
        mmsu_row(2, reference="E"),
        mmsu_row(3, audio=None),
        mmsu_row(0),
        mmsu_row(5, prompt=""),
    ]
    return str(write(tmp_path / "bad/law.parquet", rows, MMSU))


def test_bad_questions_are_all_told_before_anything_is_asked(settings, server, tmp_path):
    with pytest.raises(InputError, match="5 problems; nothing was done") as caught:
        run(replace(settings, data=bad_mmsu(tmp_path)))
    assert [problem.partition("expected")[0] for problem in caught.value.problems[1:]] == [
        "law.parquet, row 3: column 'reference': ",
        "law.parquet, row 4: field 'audio': ",
        "law.parquet, row 5: field 'id': ",
        "law.parquet, row 6: field 'prompt': ",
    ]
    assert caught.value.problems[0].startswith("law.parquet, row 2: field 'audio': clip given as bytes")
    assert server.requests == []


def test_bad_questions_can_be_left_out_and_are_named(settings, server, tmp_path, caplog):
    server.always = lambda request: Reply(400, "too long") if "What is 6" in str(user_turn(request)) else None
    bad_mmsu(tmp_path)
    write(tmp_path / "bad/physics.parquet", [mmsu_row(6), mmsu_row(7)], MMSU)
    [evaluation] = run(replace(settings, data=str(tmp_path / "bad"), skip_bad=True))
    assert (evaluation.questions, evaluation.bad) == (2, 6)
    assert {row["id"] for row in results(tmp_path / "run")} == {
        "ori_mmlu-jurisprudence_880", "ori_mmlu-jurisprudence_887",
    }  # fmt: skip
    left_out = [json.loads(line) for line in Path(evaluation.bad_file).read_text().splitlines()]
    assert [each["where"] for each in left_out] == [
        *[f"law.parquet, row {n}" for n in (2, 3, 4, 5, 6)], "physics.parquet, row 1",
    ]  # fmt: skip
    assert "status 400: 'too long'" in left_out[-1]["problems"][0]
    [again] = run(replace(settings, data=str(tmp_path / "bad"), skip_bad=True))
    assert (again.questions, again.resumed, again.bad, again.bad_file) == (2, 2, 6, evaluation.bad_file)
    assert "mmsu has 3074 questions, and 2 have results (6 were left out as bad)" in caplog.text


def test_a_question_that_was_bad_once_is_not_for_good(settings, server, tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    settings = replace(settings, skip_bad=True)
    server.always = lambda request: Reply(400, "busy") if "What is 1 " in str(user_turn(request)) else None
    with monkeypatch.context() as patched:
        patched.setattr(evaluate.RunDirectory, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    bad = tmp_path / "run/results.jsonl.bad.jsonl"
    assert bad.read_text().count("\n") == 1
    server.always = None
    [evaluation] = run(settings)
    assert (evaluation.questions, evaluation.resumed, evaluation.bad, evaluation.bad_file) == (5, 4, 0, None)
    assert not bad.exists()


def test_a_question_without_an_answer(settings, tmp_path):
    source = own_file(tmp_path / "own.jsonl", 1, answer=None)
    with pytest.raises(InputError, match=r"line 1: field 'answer': expected a right answer .*, got None"):
        run(replace(settings, benchmark=source, data=None))


def test_a_clip_that_is_missing(settings, tmp_path):
    source = own_file(tmp_path / "own.jsonl", 1, audio="nowhere.wav")
    with pytest.raises(InputError, match=r"line 1: field 'audio': expected an existing file, got .*nowhere\.wav"):
        run(replace(settings, benchmark=source, data=None))


def test_clips_are_not_looked_at_where_questions_are_only_read(settings, tmp_path):
    path = write(tmp_path / "law.parquet", [mmsu_row(0, audio={"bytes": b"no sound", "path": None})], MMSU)
    [evaluation] = run(replace(settings, data=str(path), modality="text"))
    assert evaluation.questions == 1


def test_a_directory_that_holds_something_else(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.jsonl").write_text("precious\n")
    with pytest.raises(InputError, match=r"run\.json"):
        run(settings)
    assert (tmp_path / "run/results.jsonl").read_text() == "precious\n"


def test_a_directory_that_cannot_be(settings, server, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(InputError, match=r"file.*: expected a directory to write to"):
            run(replace(settings, out=str(out)))
    assert not server.requests


def test_a_backbone_that_cannot_be_used_is_told_before_anything_is_asked(settings, server, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run(replace(settings, backbone=str(tmp_path / "nowhere")))
    assert not server.requests


def test_half_a_character_ends_no_run(settings, server, tmp_path):
    path = Path(own_file(tmp_path / "questions.jsonl", 3))
    path.write_text(path.read_text().replace("Question 1", "Question \\ud83d"))
    server.always = Reply(body=completion("half \ud83d"))
    [evaluation] = run(replace(settings, benchmark=str(path), data=None, skip_bad=True))
    assert (evaluation.questions, evaluation.bad) == (2, 1)
    assert {row["completion"] for row in results(tmp_path / "run")} == {"half ?"}
    [bad] = [json.loads(line) for line in Path(evaluation.bad_file).read_text().splitlines()]
    assert bad["row"]["prompt"] == "Question \ud83d?"
