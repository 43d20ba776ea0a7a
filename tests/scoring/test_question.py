"""The schema: what is read, what is refused and how it is named."""

import base64
import json

import pytest

from tars_rewards import Completion, Question
from tars_rewards.errors import InputError

ROW = {
    "id": "q1",
    "prompt": "What is 2 plus 2?",
    "answer": "4",
    "completions": {
        "speech": ["four", {"text": "4", "truncated": True}],
        "text": [{"text": "It is 4", "token_ids": [5, 6]}],
    },
}


def test_all_fields_are_read():
    question = Question.from_row({**ROW, "system": "Be brief.", "instruction": "Answer with a number."})
    assert (question.id, question.prompt, question.answer) == ("q1", "What is 2 plus 2?", "4")
    assert (question.system, question.instruction, question.audio) == ("Be brief.", "Answer with a number.", None)
    assert question.completions["speech"] == (Completion("four"), Completion("4", truncated=True))
    assert question.completions["text"] == (Completion("It is 4", token_ids=(5, 6)),)


def test_numbers_serve_as_id_and_answer():
    question = Question.from_row({"id": 7, "prompt": "?", "answer": 4})
    assert (question.id, question.answer) == ("7", "4")


def test_other_fields_are_left_aside_and_empty_columns_of_parquet_are_no_values():
    question = Question.from_row(
        {"id": "q", "category": "algebra", "audio": None, "completions": {"speech": None, "text": ["a"]}}
    )
    assert list(question.completions) == ["text"]
    assert question.audio is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": None}, "field 'id': expected a non-empty text, got nothing"),
        ({"id": ""}, "field 'id'"),
        ({"id": True}, "field 'id'"),
        ({"prompt": ["a chat"]}, "field 'prompt': expected a text or null, got list"),
        ({"answer": {"a": 1}}, "field 'answer'"),
        ({"system": 1}, "field 'system'"),
        ({"audio": "no such file.wav"}, "field 'audio': expected an existing file, got"),
        ({"audio": {"bytes": "not base64!"}}, "field 'audio': expected 'bytes' in base64"),
        ({"audio": {"url": "http://x"}}, "field 'audio': expected a path, 'bytes', or 'array'"),
        ({"image": {"path": ""}}, "field 'image'"),
        ({"completions": ["four"]}, "field 'completions': expected {modality: [completion, …]}, got list"),
        ({"completions": {"speech": "four"}}, "field 'completions.speech': expected a list, got str 'four'"),
        (
            {"completions": {"speech": ["a", 3]}},
            "field 'completions.speech[1]': expected a text or {'text': …}, got int 3",
        ),
        (
            {"completions": {"text": [{}]}},
            "field 'completions.text[0]': field 'text': expected the completion as a text",
        ),
        ({"completions": {"text": [{"text": "a", "token_ids": [1, -1]}]}}, "field 'token_ids': expected token ids"),
        ({"completions": {"text": [{"text": "a", "token_ids": "12"}]}}, "field 'token_ids'"),
        ({"completions": {"text": [{"text": "a", "truncated": "yes"}]}}, "field 'truncated': expected true or false"),
        (
            {"completions": {"text": [{"text": "a", "correct": 1}]}},
            "field 'correct': expected true, false or null, got int",
        ),
        ({"answer": None, "anwser": "4"}, "field 'anwser': did you mean 'answer'?"),
        ({"completions": None, "completion": {}}, "field 'completion': did you mean 'completions'?"),
    ],
)
def test_a_wrong_field_is_named(changes, expected):
    with pytest.raises(InputError) as caught:
        Question.from_row({**ROW, **changes})
    assert len(caught.value.problems) == 1
    assert expected in caught.value.problems[0]


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(InputError) as caught:
        Question.from_row({"id": "", "prompt": 3, "completions": {"text": [1, {"text": None}]}})
    assert len(caught.value.problems) == 4
    assert str(caught.value).count("\n") == 4


def test_something_that_is_no_object_is_refused():
    with pytest.raises(InputError, match="expected an object with the fields"):
        Question.from_row([1])


def test_paths_start_from_the_given_directory_and_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"x")
    monkeypatch.chdir(tmp_path.parent)
    for audio in ("clips/a.wav", {"path": "clips/a.wav"}):
        question = Question.from_row({**ROW, "audio": audio}, root=tmp_path.name)
        assert question.audio == {"path": str(tmp_path / "clips" / "a.wav")}


def test_rows_go_there_and_back(tmp_path):
    row = {**ROW, "audio": {"bytes": base64.b64encode(b"RIFF").decode()}, "instruction": "Think."}
    question = Question.from_row(row)
    assert question.audio["bytes"] == b"RIFF"
    again = Question.from_row(json.loads(json.dumps(question.to_row())))
    assert again.to_row() == question.to_row()
    assert again.completions == question.completions
    assert again.audio["bytes"] == b"RIFF"


def test_a_clip_in_short():
    assert Question.from_row({**ROW, "audio": b"RIFF"}).audio == {"bytes": b"RIFF"}
    assert Question.from_row({**ROW, "audio": ([0.5, 0.25], 8000)}).audio == {
        "array": [0.5, 0.25],
        "sampling_rate": 8000,
    }
    assert Question.from_row({**ROW, "audio": [0.5, 0.25]}).audio == [0.5, 0.25]


def test_samples_go_through_json():
    import numpy as np

    row = Question("q", audio={"array": np.zeros(3, np.float32), "sampling_rate": 16000}).to_row()
    assert json.loads(json.dumps(row))["audio"] == {"array": [0.0, 0.0, 0.0], "sampling_rate": 16000}
