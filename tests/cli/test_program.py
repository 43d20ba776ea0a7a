"""`tars-rewards score` without a model: exit codes, messages, pipes, interruption."""

import json
import re

import pyarrow.parquet as pq
import pytest
from program import question, start, write

from tars_rewards import Scorer, TARSConfig
from tars_rewards.cli import inspection

BASE_ONLY = ("--alpha", "0", "--beta", "0", "--no-progress")


@pytest.fixture
def questions(tmp_path):
    return write(tmp_path / "in.jsonl", [question(number) for number in range(3)])


def expected_rows(path):
    scorer = Scorer(None, config=TARSConfig(alpha=0, beta=0))
    return [row for scored in scorer.score(map(json.loads, path.read_text().splitlines())) for row in scored.rows()]


def test_score_writes_what_the_python_api_gives(call, questions, tmp_path):
    code, out, err = call("score", questions, "--out", tmp_path / "out.parquet", *BASE_ONLY)
    assert (code, out) == (0, "")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected_rows(questions)
    assert re.fullmatch(
        rf"tars-rewards: scored 3 questions, 9 rows in {re.escape(str(tmp_path))}/out.parquet; \d+\.\d s, "
        r"\S+ questions/s; mean reward: speech 0.750, text 1.500\n",
        err,
    )


def test_bad_rows_are_named_together(call, tmp_path):
    path = write(
        tmp_path / "in.jsonl", [question(0), "{\n", question(2, answer=None), question(3, answer=None, anwser="4")]
    )
    code, out, err = call("score", path, "--out", tmp_path / "out.jsonl", *BASE_ONLY)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 4
    assert [re.search(r"line \d", line)[0] for line in lines[1:]] == ["line 2", "line 3", "line 4"]
    assert "field 'answer'" in lines[2]
    assert "field 'anwser': did you mean 'answer'?" in lines[3]
    assert not (tmp_path / "out.jsonl").exists()


def test_skipped_rows_are_kept_and_told(call, tmp_path):
    path = write(tmp_path / "in.jsonl", [question(0), "{\n", question(2, answer=None)])
    code, _, err = call("score", path, "--out", tmp_path / "out.jsonl", "--skip-bad", *BASE_ONLY)
    assert code == 0
    assert f"scored 1 question, 3 rows in {tmp_path}/out.jsonl" in err
    assert f"left out 2 bad rows, which {tmp_path}/out.jsonl.bad.jsonl has with the reasons" in err
    assert len((tmp_path / "out.jsonl.bad.jsonl").read_text().splitlines()) == 2


def test_a_second_run_does_not_overwrite_unasked(call, questions, tmp_path):
    command = ("score", questions, "--out", tmp_path / "out.jsonl", *BASE_ONLY)
    codes = [call(*command)[0], call(*command)[0], call(*command, "--overwrite")[0]]
    assert codes == [0, 2, 0]


def test_a_setting_that_does_not_fit_the_others_is_bad_usage(call, questions):
    code, _, err = call("score", questions, "--out", "-")
    assert code == 2
    assert err.startswith("tars-rewards: alpha is 1, but there is no model")


def test_a_missing_package_is_a_sentence(call, questions, hide):
    hide("xfinder")
    code, out, err = call("score", questions, "--out", "-", *BASE_ONLY, "--answer-extractor", "xfinder")
    assert (code, out) == (1, "")
    assert "pip install" in err
    assert "Traceback" not in err


def test_debug_shows_where_it_was_raised(call, questions):
    code, _, err = call("score", questions, "--out", "-", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert "scorer.py" in err


def test_what_nobody_expects_keeps_its_traceback(call, questions, monkeypatch):
    monkeypatch.setattr(Scorer, "score_batch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("score", questions, "--out", "-", *BASE_ONLY)


def test_a_disk_that_is_full_is_a_sentence_and_leaves_what_was_done(call, questions, tmp_path):
    (tmp_path / "out.jsonl.partial").symlink_to("/dev/full")
    code, out, err = call("score", questions, "--out", tmp_path / "out.jsonl", *BASE_ONLY)
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert f"what was done is kept in {tmp_path}/out.jsonl.partial" in err


class Interrupted(Scorer):
    """Ctrl-C comes in the second batch."""

    batches = 0

    def score_batch(self, questions):
        self.batches += 1
        if self.batches == 2:
            raise KeyboardInterrupt
        return super().score_batch(questions)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_run_goes_on_where_it_was(call, tmp_path, monkeypatch, overwrite):
    path = write(tmp_path / "in.jsonl", [question(number) for number in range(100)])
    command = ("score", path, "--out", tmp_path / "out.jsonl", *BASE_ONLY)
    with monkeypatch.context() as patch:
        patch.setattr("tars_rewards.scoring.scorer.Scorer", Interrupted)
        code, out, err = call(*command, *["--overwrite"] * overwrite)
    assert (code, out) == (130, "")
    without = " without --overwrite" if overwrite else ""
    kept = f"what was done is kept in {tmp_path}/out.jsonl.partial; the same command{without} goes on from there"
    assert err == f"tars-rewards: interrupted: {kept}\n"
    done = len((tmp_path / "out.jsonl.partial").read_text().splitlines()) - 1
    assert 0 < done < 100
    code, _, err = call(*command)
    assert code == 0
    assert f"; {done} of them by an earlier run" in err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == expected_rows(path)


def test_an_interruption_that_leaves_nothing_promises_nothing(call, tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "inspect", interrupted)
    assert call("inspect", tmp_path / "r.jsonl") == (130, "", "tars-rewards: interrupted\n")


def test_pipes_carry_data_only_and_may_be_closed(tmp_path):
    """Standard input to standard output; then a reader that goes away after one line."""
    many = [question(number) for number in range(2000)]
    path = write(tmp_path / "in.jsonl", many)
    with (
        open(path) as source,
        start("score", "-", "--out", "-", "--alpha", "0", "--beta", "0", stdin=source) as process,
    ):
        first = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert json.loads(first) == expected_rows(write(tmp_path / "one.jsonl", many[:1]))[0]
    assert process.returncode == 141
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_a_pipe_that_is_read_to_its_end(tmp_path, questions):
    with start("score", "-", "--out", "-", "--alpha", "0", "--beta", "0") as process:
        out, said = process.communicate(questions.read_text())
    assert process.returncode == 0
    assert [json.loads(line) for line in out.splitlines()] == expected_rows(questions)
    assert "scored 3 questions, 9 rows in standard output" in said
    assert "3/3" in said  # the progress bar


def test_help_into_a_pipe_that_is_closed():
    with start("score", "--help") as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, "")


@pytest.mark.parametrize(
    ("source", "out", "expected"),
    [
        ("missing.jsonl", "out.jsonl", "there is no such file"),
        ("in.jsonl", "in.jsonl", "exists; choose another output"),
    ],
)
def test_paths_are_looked_at_before_a_model_is_loaded(call, questions, tmp_path, source, out, expected):
    code, _, err = call(
        "score", tmp_path / source, "--out", tmp_path / out, "--model", "no/such/model", "--no-progress"
    )
    assert code == 2
    assert expected in err
    assert "no/such/model" not in err
