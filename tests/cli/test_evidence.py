"""`evaluate`, `compare`, `drift` and `report` with a tiny Speech LLM, each on what the one before has written."""

import csv
import json
import re

import pytest
from evaluating import identities, results
from program import write

SAMPLING = ("--max-new-tokens", "6", "--no-progress", "--device", "cpu")
OFFLINE = ("--embedder-url", "http://127.0.0.1:9")  # would fail if it were asked


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tiny_models import make_qwen2_audio

    return make_qwen2_audio(tmp_path_factory.mktemp("model"))


@pytest.fixture
def rows(clips):
    return [
        {"id": f"q{n}", "prompt": f"What is {n}?", "audio": str(clips[n]), "answer": "B", "category": ["even", "odd"][n % 2]}
        for n in range(4)
    ]  # fmt: skip


@pytest.fixture
def questions(rows, tmp_path):
    return write(tmp_path / "questions.jsonl", rows)


@pytest.fixture
def evaluated(call, model, questions, tmp_path):
    """Evaluate into a directory of this name."""

    def run(name, *more, benchmark=questions):
        return call("evaluate", "--model", model, "--benchmark", benchmark, "--out", tmp_path / name, *SAMPLING, *more)

    return run


def test_from_a_model_to_a_report(call, evaluated, model, questions, tmp_path):
    before, after, drift, page = (tmp_path / name for name in ("before", "after", "drift", "report.html"))
    code, out, err = evaluated("before")
    assert code == 0, err
    assert f"evaluated on 4 questions in {before}" in err
    summary = json.loads((before / "summary.json").read_text())
    for name in ("speech", "text"):
        assert f"{name} accuracy" in out
        assert summary["modalities"][name]["rows"] == 4
    code, _, err = evaluated("after", "--temperature", "1", "--seed", "3", "--backbone", before)
    assert code == 0, err
    assert str(before) in json.loads((after / "summary.json").read_text())["denominator_name"]
    said = [[row["completion"] for row in results(run)] for run in (before, after)]
    assert said[0] != said[1]
    assert [identities(results(run)) for run in (before, after)] == [
        [(f"q{n}", modality, 0) for n in range(4) for modality in ("speech", "text")]
    ] * 2

    code, out, _ = call("compare", before, after, "--out", tmp_path / "comparison.json", "--format", "json")
    assert code == 0
    comparison = json.loads(out)
    assert comparison == json.loads((tmp_path / "comparison.json").read_text())
    assert [(each["quantity"], each["test"]) for each in comparison["differences"]] == [
        ("speech", "exact McNemar"), ("text", "exact McNemar"), ("gap", "paired bootstrap"),
    ]  # fmt: skip

    code, _, err = call(
        "drift", "--model", model, "--against", model, "--data", questions, "--out", drift, "--no-embedder",
        "--resamples", "100", *SAMPLING, *OFFLINE,
    )  # fmt: skip
    assert code == 0, err
    assert f"drift of 4 questions in {drift}" in err
    with (drift / "layers.csv").open() as file:
        changes = [row for row in csv.DictReader(file) if row["run"] == "difference"]
    assert changes
    assert {float(row["mean"]) for row in changes if row["mean"]} == {0.0}  # a model against itself

    code, _, err = call(
        "report", before, after, tmp_path / "comparison.json", drift, "--out", page, "--title", "<b>Chain"
    )
    assert code == 0, err
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;Chain" in text
    assert len(re.findall('<audio [^>]*src="data:audio/wav', text)) == 4
    for run in (before, after):
        value = 100 * json.loads((run / "summary.json").read_text())["modalities"]["text"]["accuracy"]["value"]
        assert re.search(rf">{run.name} .{{1,2000}}>{value:.1f} ", text, re.DOTALL)
    assert list((tmp_path / "report_files").glob("*.png"))


def test_what_is_bad_is_named_by_file_and_line_or_left_out(call, evaluated, model, rows, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"RIFF, and nothing behind it")
    rows[1]["audio"], rows[2]["audio"] = "nowhere.wav", "noise.wav"
    bad = write(tmp_path / "bad.jsonl", [*rows, '{"id": "cut"\n', {**rows[0], "id": "open", "answer": None}])
    code, out, err = evaluated("run", benchmark=bad)
    assert (code, out) == (2, "")
    for words in ("bad.jsonl", "line 2: field 'audio'", "line 3: field 'audio'", "line 5: ", "line 6: field 'answer'"):
        assert words in err
    assert not (tmp_path / "run/results.jsonl").exists()
    code, _, err = evaluated("run", "--skip-bad", benchmark=bad)
    assert code == 0
    assert f"left out 4 bad rows, which {tmp_path / 'run/results.jsonl.bad.jsonl'} has with the reasons" in err
    assert {row["id"] for row in results(tmp_path / "run")} == {"q0", "q3"}

    drift = ("drift", "--model", model, "--data", bad, "--out", tmp_path / "drift", "--no-embedder", *SAMPLING)
    code, _, err = call(*drift)
    assert code == 2
    for words in ("bad.jsonl", "line 2: field 'audio'", "line 3: field 'audio'", "line 5: "):
        assert words in err
    assert not (tmp_path / "drift").exists()
    code, _, err = call(*drift, "--resamples", "100", "--skip-bad")
    assert code == 0
    for words in ("left out line 2", "left out question 'q2'", "left out line 5", "drift of 3 questions"):
        assert words in err


def test_runs_that_do_not_go_together(call, evaluated, questions, rows, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    evaluated("one", "--modality", "text")
    write(questions, rows[:3])
    code, _, err = evaluated("one", "--modality", "text")
    assert code == 2
    assert f"{questions} has changed since {one} was evaluated on it; choose another directory, or overwrite" in err
    assert evaluated("other", "--modality", "text")[0] == 0
    code, out, err = call("compare", one, other)
    assert (code, out) == (2, "")
    assert f"only {one} has 1 question (q3)" in err
    run = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**run, "format": 99, "tars_rewards": "9.9"}))
    for command in (("compare", one, other), ("report", one, other, "--out", tmp_path / "report.html")):
        code, _, err = call(*command)
        assert code == 2
        assert f"{other / 'run.json'} cannot be used" in err
        assert "got 99: the run is of tars-rewards 9.9; evaluate again" in err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("evaluate", "--benchmark", "mmssu"), "unknown benchmark 'mmssu'; did you mean 'mmsu'?"),
        (("evaluate", "--benchmark", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("evaluate", "--benchmark", "{questions}", "--backbone", "nowhere"), "nowhere/run.json cannot be read"),
        (("evaluate", "--benchmark", "{questions}", "--out", "{questions}"), "expected a directory to write to"),
        (("evaluate", "--benchmark", "{questions}", "--snr", "nan"), "snr_db is nan"),
        (("drift", "--data", "{questions}", "--out", "{questions}"), "expected a directory to write to"),
        (("drift", "--data", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("drift", "--data", "{questions}", "--bucket-tokens", "0"), "bucket_tokens is 0"),
        (("compare", "nowhere", "elsewhere"), "nowhere/run.json cannot be read"),
        (("compare",), "expected runs of two or more arms to compare, got none"),
        (("report", "nowhere", "--out", "r.html"), "got nothing of that name"),
        (("report", "nowhere", "--out", "r.pdf"), "such as report.html"),
    ],
)
def test_mistakes_are_said_in_a_sentence(call, questions, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    given = [each.format(questions=questions) for each in arguments]
    if given[0] in ("evaluate", "drift"):  # the mistake is found before the model is looked for
        given += ["--model", "nowhere", *(() if "--out" in given else ("--out", "run"))]
    code, out, err = call(*given)
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err
