"""Rows as they come from elsewhere: pandas, damaged texts, columns of other names, a program that writes anything."""

import difflib
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program import question, write

from tars_rewards import Question, Scorer, TARSConfig
from tars_rewards.errors import InputError
from tars_rewards.scoring.tables import read_rows, write_rows


@pytest.fixture
def scorer():
    return Scorer(None, config=TARSConfig(alpha=0, beta=0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000 + "\n", "expected one JSON object a line"),
        ('{"id": ' + "9" * 5000 + "}\n", "expected one JSON object a line"),
        (question(2, answer=float("nan")), "field 'answer': expected a text or null, got float nan"),
        (question(2, id=float("nan")), "field 'id': expected a non-empty text, got float nan"),
        (question(2, id="\ud800"), "field 'id': expected a non-empty text, got a surrogate that stands alone"),
        (
            question(2, completions={"text": ["ok", "\ud800"]}),
            "field 'completions.text[1]': expected a text or {'text': …}, got a surrogate",
        ),
        (question(2, answer="?!"), "field 'answer': expected the right answer, with a letter or a digit in it"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_before_the_work_and_can_be_skipped(scorer, tmp_path, line, message):
    source, out = write(tmp_path / "in.jsonl", [question(1), line]), tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="1 problem; nothing was done") as caught:
        scorer.score_file(source, out, progress=False)
    assert caught.value.problems[0].startswith(f"line 2: {message}")
    report = scorer.score_file(source, out, progress=False, skip_bad=True)
    assert (report.questions, report.bad) == (1, 1)
    assert message in json.loads((tmp_path / "out.jsonl.bad.jsonl").read_text())["problems"][0]


def test_bad_rows_are_kept_whatever_else_is_in_them(scorer, tmp_path):
    columns = {"id": ["a", ""], "answer": ["4", "4"], "completions": [{"text": ["x"]}] * 2}
    columns |= {"day": pa.array([0, 1], pa.date32()), "score": [1.0, float("nan")], "file": [b"0", b"1"]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    report = scorer.score_file(tmp_path / "in.parquet", tmp_path / "out.jsonl", progress=False, skip_bad=True)
    assert (report.questions, report.bad) == (1, 1)
    row = json.loads((tmp_path / "out.jsonl.bad.jsonl").read_text())["row"]
    assert (row["day"], row["file"]) == ("1970-01-02", "MQ==")
    assert row["score"] != row["score"]


def test_a_map_with_a_key_twice_is_refused(scorer, tmp_path):
    kind = pa.map_(pa.string(), pa.list_(pa.string()))
    twice = pa.array([[("text", ["x"]), ("text", ["y"])]], kind)
    pq.write_table(pa.table({"id": ["a"], "answer": ["4"], "completions": twice}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="a key that is there twice"):
        scorer.score_file(tmp_path / "in.parquet", tmp_path / "out.jsonl", progress=False)


def test_a_clip_whose_every_field_is_null_is_none():
    assert Question.from_row(question(1, audio={"bytes": None, "path": None})).audio is None


def test_a_name_like_a_known_one_is_only_doubted_where_that_is_missing():
    assert Question.from_row(question(1, prompt_id=7, answers=["4"])).answer == "4"
    row = question(1, anwser="4")
    del row["answer"]
    with pytest.raises(InputError, match="field 'anwser': did you mean 'answer'"):
        Question.from_row(row)


def test_thousands_of_strange_names_are_not_all_compared(monkeypatch):
    compared = []
    found = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", lambda *args, **more: compared.append(0) or found(*args, **more))
    Question.from_row(question(1, **{f"name{number}": 0 for number in range(5000)}, **{"x" * 10_000: 0}))
    assert 0 < len(compared) < 500


def test_questions_in_parquet_keep_what_the_first_of_them_has_not(tmp_path):
    first = Question("a", completions={"text": ()})
    audio = {"array": [0.5, 0.25], "sampling_rate": 8000}
    second = Question("b", "2+2?", audio, {"path": "i.png"}, "4", {"text": ()}, "Be brief.", "Answer.", "sums")
    third = Question("c", audio=[0.5, 0.25], completions={"text": ()})
    path = tmp_path / "questions.parquet"
    write_rows(path, [each.to_row() for each in (first, second, third)], parquet=True)
    rows = [row.value for row in read_rows(path, parquet=True)]
    kept = {name: value for name, value in rows[1].items() if name not in ("audio", "image", "completions")}
    assert kept == {name: value for name, value in second.to_row().items() if name in kept}
    assert {name: rows[1]["audio"][name] for name in audio} == audio
    assert rows[1]["image"]["path"] == "i.png"
    assert {name: rows[2]["audio"][name] for name in audio} == {"array": [0.5, 0.25], "sampling_rate": 16000}


def test_standard_output_of_another_encoding_gets_json_all_the_same(scorer, tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    source = write(tmp_path / "in.jsonl", [question(1, completions={"text": ["né ☃"]})])
    scorer.score_file(source, "-", progress=False)
    assert json.loads(written.getvalue().decode("utf-8"))["completion"] == "né ☃"
