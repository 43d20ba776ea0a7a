"""Files in and out, with a scorer that needs no model: what is bad is told, what is done is kept."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from program import RIGHT, question, write

from tars_rewards import Scorer, TARSConfig
from tars_rewards.errors import InputError, ScoringError
from tars_rewards.scoring import tables
from tars_rewards.scoring.work import FIRST

JUDGED = {"text": [{"text": "a", "correct": True}]}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def scorer():
    return Scorer(None, config=TARSConfig(alpha=0, beta=0))


@pytest.fixture
def many(tmp_path):
    return write(tmp_path / "in.jsonl", [question(number) for number in range(10 * FIRST)])


class Interrupted(Scorer):
    """A scorer that is interrupted in its second batch."""

    error: BaseException = KeyboardInterrupt()
    batches = 0

    def score_batch(self, questions):
        self.batches += 1
        if self.batches == 2:
            raise self.error
        return super().score_batch(questions)


def interrupt(source, out, error=None):
    scorer = Interrupted(None, config=TARSConfig(alpha=0, beta=0))
    scorer.error = error or KeyboardInterrupt()
    with pytest.raises(type(scorer.error)):
        scorer.score_file(source, out, progress=False)


def test_a_row_for_every_completion(scorer, tmp_path):
    source, out = write(tmp_path / "in.jsonl", [question(1), question(2)]), tmp_path / "out.jsonl"
    report = scorer.score_file(source, out, progress=False)
    rows = read(out)
    assert [(row["id"], row["modality"], row["sample_id"]) for row in rows] == [
        (identity, *which) for identity in ("q1", "q2") for which in (("speech", 0), ("speech", 1), ("text", 0))
    ]
    assert rows[0] == {
        "id": "q1", "modality": "speech", "sample_id": 0, "completion": RIGHT, "answer": "4", "truncated": False,
        "total": 1.5, "accuracy": 1.0, "format": 1.0, "representation": None, "behavior": None, "reference": 0,
        "log_prob": None, "tokens": None,
    }  # fmt: skip
    assert [row["total"] for row in rows[:3]] == [1.5, 0.0, 1.5]
    assert rows[2]["reference"] is None
    assert (report.questions, report.rows, report.bad, report.resumed, report.bad_file) == (2, 6, 0, 0, None)
    assert report.mean_reward == {"speech": 0.75, "text": 1.5}
    assert set(os.listdir(tmp_path)) == {"in.jsonl", "out.jsonl"}


def test_a_term_of_ones_own_is_a_column(tmp_path):
    def brevity(batch, reference):
        from tars_rewards import TermValue

        term = TermValue.nowhere(len(batch))
        term.values[:], term.valid[:] = 0.5, True
        return term

    scorer = Scorer(None, config=TARSConfig(alpha=0, beta=0, terms={brevity: 2.0}))
    scorer.score_file(write(tmp_path / "in.jsonl", [question(1)]), tmp_path / "out.parquet", progress=False)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["brevity"] for row in rows] == [0.5, 0.5, None]
    assert [row["total"] for row in rows] == [2.5, 1.0, 1.5]


def test_parquet_in_and_out_says_the_same_as_jsonl(scorer, tmp_path):
    import pyarrow as pa

    source = write(
        tmp_path / "in.jsonl",
        [question(1), question(2, answer=None, completions=JUDGED)],
    )
    scorer.score_file(source, tmp_path / "a.jsonl", progress=False)
    rows = read(source)
    # As a data frame would write it: one type a column.
    for row in rows:
        row["completions"] = {
            modality: [each if isinstance(each, dict) else {"text": each} for each in given]
            for modality, given in row["completions"].items()
        }
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    scorer.score_file(tmp_path / "in.parquet", tmp_path / "b.parquet", progress=False)
    assert pq.read_table(tmp_path / "b.parquet").to_pylist() == read(tmp_path / "a.jsonl")
    schema = pq.read_schema(tmp_path / "b.parquet")
    assert [str(schema.field(name).type) for name in ("id", "truncated", "total", "reference", "tokens")] == [
        "string", "bool", "double", "int64", "int64",
    ]  # fmt: skip


def test_bad_rows_are_told_together_and_nothing_is_done(scorer, tmp_path):
    source = write(
        tmp_path / "in.jsonl",
        [
            question(1),
            "{broken\n",
            "\n",
            question(2, answer=None),
            question(3, completions={"video": ["a"]}),
            question(1),
            "[1]\n",
        ],
    )
    with pytest.raises(InputError) as caught:
        scorer.score_file(source, tmp_path / "out.jsonl", progress=False)
    problems = caught.value.problems
    assert [problem.split(":")[0] for problem in problems] == ["line 2", "line 4", "line 5", "line 6", "line 7"]
    assert "expected one JSON object a line, got '{broken'" in problems[0]
    assert "field 'answer'" in problems[1]
    assert "field 'completions.video': expected the modalities speech and text" in problems[2]
    assert "field 'id': expected each id once, got 'q1', which line 1 has" in problems[3]
    assert str(caught.value).startswith(f"{source}: 5 problems; nothing was done:\n  line 2: ")
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_bad_rows_that_are_skipped_are_kept_aside(scorer, tmp_path):
    bad = question(2, answer=None)
    source = write(tmp_path / "in.jsonl", [question(1), "{broken\n", bad, question(3)])
    report = scorer.score_file(source, tmp_path / "out.parquet", skip_bad=True, progress=False)
    assert (report.questions, report.bad) == (2, 2)
    aside = read(tmp_path / "out.parquet.bad.jsonl")
    assert str(tmp_path / "out.parquet.bad.jsonl") == report.bad_file
    assert [row["where"] for row in aside] == ["line 2", "line 3"]
    assert [row["row"] for row in aside] == ["{broken\n", bad]
    assert "field 'answer'" in aside[1]["problems"][0]
    assert {row["id"] for row in pq.read_table(tmp_path / "out.parquet").to_pylist()} == {"q1", "q3"}


def test_what_fails_later_is_a_bad_row_too(tmp_path):
    class Failing(Scorer):
        def score_batch(self, questions):
            return [
                ScoringError("lost") if each.id == "q2" else done
                for each, done in zip(questions, super().score_batch(questions), strict=True)
            ]

    scorer = Failing(None, config=TARSConfig(alpha=0, beta=0))
    source = write(tmp_path / "in.jsonl", [question(1), question(2), question(3)])
    with pytest.raises(ScoringError, match=r"in\.jsonl, line 2: lost"):
        scorer.score_file(source, tmp_path / "out.jsonl", progress=False)
    report = scorer.score_file(source, tmp_path / "out.jsonl", skip_bad=True, progress=False)
    assert (report.questions, report.bad, report.resumed) == (2, 1, 2)
    assert read(tmp_path / "out.jsonl.bad.jsonl")[0]["problems"] == ["lost"]
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == ["q1"] * 3 + ["q3"] * 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("crash")])
def test_an_interrupted_run_goes_on(scorer, many, tmp_path, error):
    interrupt(many, tmp_path / "out.jsonl", error)
    assert not (tmp_path / "out.jsonl").exists()
    report = scorer.score_file(many, tmp_path / "out.jsonl", progress=False)
    assert (report.questions, report.rows, report.resumed) == (10 * FIRST, 30 * FIRST, FIRST)
    scorer.score_file(many, tmp_path / "at once.jsonl", progress=False)
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "at once.jsonl").read_text()
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_line_that_was_being_written_is_done_again(scorer, many, tmp_path):
    interrupt(many, tmp_path / "out.jsonl")
    journal = tmp_path / "out.jsonl.partial"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert scorer.score_file(many, tmp_path / "out.jsonl", progress=False).resumed == FIRST - 1
    assert len(read(tmp_path / "out.jsonl")) == 30 * FIRST


def test_a_killed_process_loses_nothing(many, tmp_path):
    program = f"""
import time
from tars_rewards import Scorer, TARSConfig
class Slow(Scorer):
    def score_batch(self, questions):
        time.sleep(0.5)
        return super().score_batch(questions)
print(Slow(None, config=TARSConfig(alpha=0, beta=0)).score_file({str(many)!r}, {str(tmp_path / "out.parquet")!r}).resumed)
"""
    journal = tmp_path / "out.parquet.partial"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + FIRST:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(again.stdout) in (FIRST, 3 * FIRST)
    assert "question/s" in again.stderr
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len({(row["id"], row["modality"], row["sample_id"]) for row in rows}) == len(rows) == 30 * FIRST


def test_a_run_with_other_settings_does_not_go_on(many, tmp_path):
    interrupt(many, tmp_path / "out.jsonl")
    other = Scorer(None, config=TARSConfig(alpha=0, beta=0, format_weight=0.25), instruction="Think.")
    with pytest.raises(InputError) as caught:
        other.score_file(many, tmp_path / "out.jsonl", progress=False)
    assert any(problem.startswith("instruction: None then, 'Think.' now") for problem in caught.value.problems)
    assert any("'format_weight': 0.25" in problem for problem in caught.value.problems)
    report = other.score_file(many, tmp_path / "out.jsonl", overwrite=True, progress=False)
    assert (report.resumed, report.questions) == (0, 10 * FIRST)


@pytest.mark.parametrize("left", ['{"format": 1, "settings": {"model": "mistyped"}}\n', '{"format": 1, "sett'])
def test_what_a_run_leaves_that_has_done_nothing_is_in_nobodys_way(scorer, many, tmp_path, left):
    (tmp_path / "out.jsonl.partial").write_text(left)
    interrupt(many, tmp_path / "out.jsonl")
    report = scorer.score_file(many, tmp_path / "out.jsonl", progress=False)
    assert (report.resumed, report.questions) == (FIRST, 10 * FIRST)


def test_a_question_that_has_changed_is_noticed(scorer, many, tmp_path):
    interrupt(many, tmp_path / "out.jsonl")
    rows = read(many)
    rows[3]["answer"] = "5"
    write(many, rows)
    with pytest.raises(InputError, match="question 'q3' has changed since its results were written"):
        scorer.score_file(many, tmp_path / "out.jsonl", progress=False)


def test_a_question_that_is_gone_is_noticed(scorer, many, tmp_path):
    interrupt(many, tmp_path / "out.jsonl")
    write(many, read(many)[1:])
    with pytest.raises(InputError, match="1 questions that the input does not have, such as 'q0'"):
        scorer.score_file(many, tmp_path / "out.jsonl", progress=False)


@pytest.mark.parametrize(
    ("source", "out", "expected"),
    [
        ("missing.jsonl", "out.jsonl", "missing.jsonl cannot be read: there is no such file"),
        ("in.csv", "out.jsonl", "in.csv: expected a file name that ends in .jsonl, .ndjson, .json, .parquet, .pq"),
        ("in.jsonl", "out.csv", "out.csv: expected a file name that ends in"),
        ("in.jsonl", "nowhere/out.jsonl", "expected an existing directory"),
        ("empty.jsonl", "out.jsonl", "empty.jsonl: expected at least one question, got none"),
        ("no.parquet", "out.jsonl", "cannot be read as Parquet"),
    ],
)
def test_files_that_cannot_be_used(scorer, tmp_path, monkeypatch, source, out, expected):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", [question(1)])
    write(tmp_path / "empty.jsonl", ["\n"])
    write(tmp_path / "no.parquet", ["this is text\n"])
    with pytest.raises(InputError, match=r".") as caught:
        scorer.score_file(source, out, progress=False)
    assert expected in str(caught.value)


def test_questions_with_clips_go_through_parquet(tmp_path):
    from tars_rewards import Question

    rows = [
        Question("a", audio={"bytes": b"RIFF"}, completions=Question.from_row(question(1)).completions).to_row(),
        {**Question("b", audio={"path": str(tmp_path)}).to_row(), "completions": {"speech": [], "text": []}},
    ]
    tables.write_rows(tmp_path / "a.parquet", rows, parquet=True)
    first, second = (row.value for row in tables.read_rows(tmp_path / "a.parquet", parquet=True))
    assert first["audio"]["bytes"] == b"RIFF"
    assert Question.from_row(first).to_row()["completions"] == rows[0]["completions"]
    assert second["audio"]["path"] == str(tmp_path)


def test_memory_does_not_grow_with_the_file(scorer, tmp_path):
    import tracemalloc

    long = {"text": [RIGHT + "x" * 5000]}

    def peak(count):
        source = write(tmp_path / f"{count}.jsonl", (question(number, completions=long) for number in range(count)))
        tracemalloc.start()
        try:
            scorer.score_file(source, tmp_path / f"{count}.parquet", progress=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(2500), peak(5500)
    # What is kept of each question is its id and a hash, not its 5,000 characters.
    assert (large - small) / 3000 < 500
