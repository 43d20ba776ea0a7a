"""`tars-rewards inspect` on files made by hand, and on what `score` wrote."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program import question, write

LONG = "word " * 100 + "end"


def row(modality, sample_id, **changes):
    return {
        "id": "q1",
        "modality": modality,
        "sample_id": sample_id,
        "completion": f"{modality} says {sample_id}",
        "answer": "B",
        "truncated": False,
        "total": 1.5,
        "accuracy": 1.0,
        "format": 1.0,
        "representation": None,
        "behavior": None,
        "reference": None,
        "log_prob": -12.3456,
        "tokens": 7,
        **changes,
    }


ROWS = [
    row("text", 0, completion="it is [bold]B[/bold]\x1b[31m"),
    row("text", 1, total=0.5),
    row("speech", 0, total=3.16666, representation=0.9, behavior=0.76666, reference=1),
    row("speech", 1, truncated=True, completion=LONG),
    row("speech", 2, total=2.0, reference=1),
    row("text", 0, id="q2", answer=None),
    row("speech", 0, id="q3", completion="third"),
]


@pytest.fixture(params=["jsonl", "parquet"])
def rewards(request, tmp_path):
    path = tmp_path / f"rewards.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    return write(path, ROWS)


def columns(out):
    """What stands left and right, line by line, below the table's head."""
    lines = out.splitlines()
    head = next(index for index, line in enumerate(lines) if "─" in line)
    middle = lines[head - 1].index("text (")
    return [line[:middle].strip() for line in lines[head + 1 :]], [line[middle:].strip() for line in lines[head + 1 :]]


def test_a_question_side_by_side(call, rewards):
    code, out, err = call("inspect", rewards)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "q1   answer: B"
    left, right = columns(out)
    first = ["#0  total 3.167", "accuracy 1", "format 1", "representation 0.9", "behavior 0.767"]
    assert left[:8] == [*first, "log-prob -12.346 in 7 tokens", "→ text #1", "speech says 0"]
    assert "#1  total 1.5  truncated" in left
    assert left.count("no reference") == 1
    assert right[:3] == ["#0  total 1.5", "accuracy 1", "format 1"]
    assert [each for each in right if "chosen" in each] == ["not chosen", "← chosen by speech #0, #2"]
    assert "representation" not in "".join(right)


def test_what_is_piped_fits_80_columns_and_commands_no_terminal(call, rewards, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call("inspect", rewards, "-n", "3")
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert "[bold]B[/bold]\ufffd[31m" in out.replace("\n", "")


def test_long_completions(call, rewards):
    cut, full = (columns(call("inspect", rewards, *more)[1])[0] for more in ([], ["--full"]))
    assert "… (+263 characters)" in " ".join(cut)
    assert "end" not in " ".join(cut)
    assert " ".join(full).count("word") == 100
    assert "word end" in " ".join(full)


def test_which_questions(call, rewards):
    def titles(*arguments):
        return [line.split()[0] for line in call("inspect", rewards, *arguments)[1].splitlines() if "answer: " in line]

    assert titles() == ["q1"]
    assert titles("-n", "2") == ["q1", "q2"]
    assert titles("-n", "9") == ["q1", "q2", "q3"]
    assert titles("--id", "q3", "q1") == ["q3", "q1"]


def test_other_modalities(call, tmp_path):
    path = write(tmp_path / "r.jsonl", [row("image", 0, reference=0), row("words", 0)])
    code, out, err = call("inspect", path)
    assert (code, out.count("\n")) == (2, 1)
    assert "'image', 'words', expected 'speech' and 'text'" in err
    code, out, _ = call("inspect", path, "--target-modality", "image", "--anchor-modality", "words")
    assert code == 0
    assert "→ words #0" in out


def test_what_is_not_there(call, rewards, tmp_path):
    for arguments, said in [
        ([rewards, "--id", "q1", "q7"], "no question 'q7' in"),
        ([tmp_path / "nowhere.jsonl"], "expected a file of rewards, found none at"),
        ([write(tmp_path / "empty.jsonl", [])], "no rows in"),
        ([rewards, "-n", "0"], "-n is 0; expected at least 1"),
    ]:
        code, out, err = call("inspect", *arguments)
        assert (code, out) == (2, "")
        assert said in err


@pytest.mark.parametrize("which", [(), ("--id", "q1")])
def test_bad_lines_are_named_together_even_before_the_question_asked_for(call, tmp_path, which):
    path = write(tmp_path / "r.jsonl", ["[1]\n", "{\n", '{"id": "q0", "total": 1}\n', *ROWS])
    code, out, err = call("inspect", path, *which)
    assert (code, out) == (2, "")
    assert [line.strip().split(": ")[0] for line in err.splitlines()[1:]] == ["line 1", "line 2", "line 3"]
    assert err.splitlines()[3].endswith("missing: 'modality', 'completion'")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"id": ["q1"], "total": [1.0]}, "column 'modality' is missing"),
        (
            {"id": [1], "modality": ["text"], "completion": ["x"], "total": [1.0]},
            "column 'id': expected texts, got int64",
        ),
        (None, "is no Parquet file"),
    ],
)
def test_parquet_of_another_kind(call, tmp_path, table, said):
    path = tmp_path / "r.parquet"
    path.write_bytes(b"PAR") if table is None else pq.write_table(pa.table(table), path)
    code, out, err = call("inspect", path, "--id", "q1")
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "pq"])
def test_it_reads_what_score_writes(call, tmp_path, suffix):
    source, rewards = write(tmp_path / "in.jsonl", [question(1), question(2)]), tmp_path / f"r.{suffix}"
    assert call("score", source, "--out", rewards, "--alpha", "0", "--beta", "0", "--no-progress")[0] == 0
    code, out, _ = call("inspect", rewards, "--id", "q2")
    assert code == 0
    left, right = columns(out)
    assert [each for each in left if each.startswith("#")] == ["#0  total 1.5", "#1  total 0"]
    assert "← chosen by speech #0, #1" in right


def test_standard_input(call, monkeypatch, tmp_path):
    with open(write(tmp_path / "r.jsonl", ROWS)) as rows:
        monkeypatch.setattr("sys.stdin", rows)
        code, out, _ = call("inspect", "-", "--id", "q3")
    assert code == 0
    assert "third" in out
    assert json.dumps("third") not in out
