"""Run directories: what is written is read back, and what is wrong is named with file, line, field and remedy."""

import json

import pytest
from evaluation_runs import make_info, make_rows, make_run

from tars_rewards.errors import InputError
from tars_rewards.evaluation.outcomes import read_outcomes, require_same_questions
from tars_rewards.evaluation.records import (
    EvaluationRow,
    prompts_fingerprint,
    questions_fingerprint,
    read_info,
    read_results,
    write_info,
    write_results,
)

BOTH = {"speech": [True, False, True], "text": [True, True, True]}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", BOTH, categories=["law", "law", None])


def edit(run, line, **changed):
    """Change fields of one line (from 1); a field set to ... is dropped."""
    path = run / "results.jsonl"
    lines = path.read_text().splitlines()
    row = {**json.loads(lines[line - 1]), **changed}
    lines[line - 1] = json.dumps({name: value for name, value in row.items() if value is not ...})
    path.write_text("\n".join(lines) + "\n")


def problems(run):
    with pytest.raises(InputError) as caught:
        list(read_results(run))
    assert str(run / "results.jsonl") in str(caught.value)
    assert "evaluate" in caught.value.message  # the remedy
    return list(caught.value.problems)


def test_rows_come_back(tmp_path):
    rows = make_rows(BOTH)
    assert write_results(tmp_path / "deep" / "run", rows) == 6
    assert list(read_results(tmp_path / "deep" / "run")) == rows


def test_unknown_numbers_are_null(tmp_path):
    row = EvaluationRow("q1", "text", "?", "B", "", None, False)
    write_results(tmp_path, [row])
    written = json.loads((tmp_path / "results.jsonl").read_text())
    assert written["tokens"] is written["seconds"] is written["audio"] is written["extraction"] is None
    assert list(read_results(tmp_path)) == [row]


def test_info_comes_back(tmp_path):
    info = make_info(make_rows(BOTH))
    write_info(tmp_path, info)
    assert read_info(tmp_path) == info
    content = json.loads((tmp_path / "run.json").read_text())
    assert (content["format"], content["kind"]) == (1, "evaluation")


def test_rows_are_streamed(run):
    """The first row arrives though a later line is broken; the end of the stream tells of it."""
    edit(run, 6, completion=3)
    rows = read_results(run)
    assert [next(rows).id for _ in range(5)] == ["q0", "q1", "q2", "q0", "q1"]
    with pytest.raises(InputError, match="line 6"):
        next(rows)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"answer": None},
            "line 2: field 'answer': expected the right answer (give it in the question file), got null",
        ),
        ({"answer": " "}, "line 2: field 'answer': expected the right answer"),
        ({"correct": 1}, "line 2: field 'correct': expected true or false, got 1"),
        ({"correct": ...}, "line 2: field 'correct': expected true or false, got no such field"),
        ({"sample_id": -1}, "line 2: field 'sample_id': expected a whole number of at least 0, got -1"),
        ({"sample_id": True}, "line 2: field 'sample_id': expected a whole number of at least 0, got true"),
        ({"tokens": 1.5}, "line 2: field 'tokens': expected a whole number of at least 0, or null, got 1.5"),
        ({"seconds": float("nan")}, "line 2: field 'seconds': expected a number of at least 0, or null, got NaN"),
        ({"id": ""}, "line 2: field 'id': expected a text"),
        ({"completion": None}, "line 2: field 'completion': expected a text, got null"),
        ({"correct": True}, "line 2: field 'correct': expected false where 'extraction' is null, got true"),
        ({"prompt": "Another?"}, "line 5: field 'prompt': expected that of the other rows of 'q1'"),
        ({"category": "art"}, "line 5: field 'category': expected that of the other rows of 'q1'"),
        (
            {"id": "q0"},
            "line 2: expected each (id, modality, sample_id) once, got ('q0', 'speech', 0) again after line 1",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_row_is_named(run, changed, problem):
    edit(run, 2, **changed)
    (found,) = problems(run)
    assert found.startswith(problem)


def test_all_bad_rows_are_named_together(run):
    edit(run, 1, tokens="ten", truncated=None)
    edit(run, 4, modality=None)
    assert [each.split(":")[0] for each in problems(run)] == ["line 1", "line 1", "line 4"]


def test_a_line_cut_off_by_a_kill(run):
    path = run / "results.jsonl"
    path.write_text(path.read_text()[:-20])
    (found,) = problems(run)
    assert found.startswith("line 6: expected one JSON object a line")


def test_a_line_that_is_no_object(run):
    with open(run / "results.jsonl", "a") as file:
        file.write("[1, 2]\n")
    assert problems(run)[0].startswith("line 7: expected an object with the fields id, ")


def test_a_file_of_something_else_is_not_read_to_its_end(tmp_path):
    (tmp_path / "results.jsonl").write_text("nonsense\n" * 500)
    found = problems(tmp_path)
    assert len(found) == 101
    assert found[-1] == "line 101: not read any further"


@pytest.mark.parametrize("name", ["run.json", "results.jsonl"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(InputError, match=rf"{name}.*tars-rewards evaluate --out"):
        read_outcomes(run)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"format": 2, "tars_rewards": "9.9"},
            "field 'format': expected 1, got 2: the run is of tars-rewards 9.9; evaluate",
        ),
        ({"kind": "drift"}, "field 'kind': expected 'evaluation', got \"drift\"; give a directory"),
        ({"extractor": None}, "field 'extractor': expected a text, got null"),
        ({"sampling": []}, "field 'sampling': expected an object, got []"),
    ],
    ids=["version", "kind", "extractor", "sampling"],
)
def test_a_bad_info_is_named(run, changed, problem):
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(InputError, match=r"run\.json cannot be used") as caught:
        read_info(run)
    assert caught.value.problems[0].startswith(problem)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_an_info_that_is_none(run, content):
    (run / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json.*(?s:.)*expected (JSON|an object)"):
        read_info(run)


def test_half_a_pair(run):
    path = run / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(InputError, match="half a pair") as caught:
        read_outcomes(run)
    assert caught.value.problems == ("text: no answer to 2 questions (q1, q2)",)


def test_no_results(run):
    (run / "results.jsonl").write_text("")
    with pytest.raises(InputError, match="expected results, got none"):
        read_outcomes(run)


def test_outcomes(tmp_path):
    run = make_run(tmp_path, {"speech": [[1, 0, 0, 0], [1, 1, 1, 0]], "text": [[1, 1, 1, 1], [0, 0, 0, 0]]})
    outcomes = read_outcomes(run)
    assert list(outcomes.questions) == ["q0", "q1"]
    assert outcomes.share["speech"].tolist() == [0.25, 0.75]
    assert outcomes.share["text"].tolist() == [1.0, 0.0]
    assert outcomes.samples == {"speech": 4.0, "text": 4.0}
    assert outcomes.spoken == "speech"
    assert (outcomes.totals["speech"].unparsed, outcomes.totals["speech"].tokens) == (4, 80)


def test_two_modalities_beside_text(tmp_path):
    outcomes = read_outcomes(make_run(tmp_path, {"speech": [1], "image": [1], "text": [1]}))
    with pytest.raises(InputError, match="one modality beside 'text', got image, speech"):
        outcomes.spoken  # noqa: B018


def test_questions_fingerprint():
    questions = [("q1", "A"), ("q2", "B"), ("q3", "A")]
    whole = questions_fingerprint(questions)
    assert questions_fingerprint(reversed(questions)) == whole
    others = [questions[:2], [*questions[:2], ("q3", "B")], [*questions[:2], ("q4", "A")], [*questions, ("q4", "A")]]
    assert len({whole, *map(questions_fingerprint, others)}) == 5


def test_prompts_fingerprint_keeps_system_and_instruction_apart():
    texts = [("a", "b", None), ("b", "a", None), ("ab", None, None), (None, "ab", None), ("a", "b", "c")]
    assert len({prompts_fingerprint(*each) for each in texts}) == 5


@pytest.mark.parametrize(
    ("verdicts", "changed", "problem"),
    [
        ({"speech": [1, 1], "text": [1, 1]}, {}, "only {a} has 1 question (q2)"),
        ({"speech": [1] * 9, "text": [1] * 9}, {}, "only {b} has 6 questions (q3, q4, q5 and 3 more)"),
        (BOTH, {"extractor": "voicebench"}, "answer extractor differ ('tags' and 'voicebench')"),
        (BOTH, {"prompts": "else"}, "system prompt and instruction differ ("),
    ],
    ids=["fewer questions", "more questions", "extractor", "prompts"],
)
def test_runs_that_cannot_be_compared(tmp_path, verdicts, changed, problem):
    a, b = make_run(tmp_path / "a", BOTH), make_run(tmp_path / "b", verdicts, **changed)
    runs = [read_outcomes(a), read_outcomes(b)]
    with pytest.raises(InputError, match="cannot be compared") as caught:
        require_same_questions(runs)
    (found,) = caught.value.problems
    assert found.startswith(f"{a} and {b}: " + problem.format(a=a, b=b))


@pytest.mark.parametrize(("field", "problem"), [("answer", "right answers"), ("prompt", "prompts")])
def test_runs_whose_questions_have_the_same_ids_only(tmp_path, field, problem):
    a, b = make_run(tmp_path / "a", BOTH), make_run(tmp_path / "b", BOTH)
    for line in (3, 6):
        edit(b, line, **{field: "Z"})
    write_info(b, make_info(list(read_results(b))))
    with pytest.raises(InputError) as caught:
        require_same_questions([read_outcomes(a), read_outcomes(b)])
    assert caught.value.problems == (f"{a} and {b}: {problem} differ in 1 question (q2)",)


@pytest.mark.parametrize("change", [lambda lines: lines[:-2], lambda lines: [*lines[:2], *lines[4:]]])
def test_results_that_were_lost_are_missed(tmp_path, change):
    """Whole questions, so that no half of a pair tells."""
    run = make_run(tmp_path / "run", {"text": [1, 1, 0, 1, 0, 1]})
    path = run / "results.jsonl"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    with pytest.raises(
        InputError, match=r"results\.jsonl: expected results of the run's questions, got those of 4, .*lost"
    ):
        read_outcomes(run)
