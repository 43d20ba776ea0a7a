"""What a report is given, and what it says of what it cannot use."""

import json
import sys

import pytest
import report_runs as runs

from tars_rewards.errors import ConfigError, InputError, MissingDependencyError
from tars_rewards.report.collect import collect
from tars_rewards.report.settings import ReportSettings
from tars_rewards.report.write import write_report


def edit(path, **changed):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_everything_is_recognised_by_what_is_in_it(inputs):
    found = collect([inputs.drift, inputs.comparison, inputs.training, inputs.after, inputs.before])
    assert [run.label for run in found.evaluations] == ["after", "before"]
    assert [run.label for run in found.drifts] == ["drift"]
    assert [run.label for run in found.trainings] == ["grpo"]
    assert [run.label for run in found.comparisons] == ["against"]


def test_the_figures_are_those_of_the_run(inputs):
    [run] = collect([inputs.before]).evaluations
    rows = [json.loads(line) for line in (inputs.before / "results.jsonl").read_text().splitlines()]
    spoken = [row["correct"] for row in rows if row["modality"] == "speech"]
    assert run.accuracy["speech"].value == pytest.approx(sum(spoken) / len(spoken))
    assert run.accuracy["speech"].low < run.accuracy["speech"].value < run.accuracy["speech"].high
    assert run.gap.value == pytest.approx(run.accuracy["text"].value - run.accuracy["speech"].value)
    assert (run.questions, len(run.rows), len(run.categories)) == (120, 240, len(runs.KINDS))
    assert run.denominator_name == "own text"


def test_a_summary_that_is_missing_is_made(tmp_path, inputs):
    with_it, without = (runs.evaluation(tmp_path / str(summary), summary=summary, clips=0) for summary in (True, False))
    first, second = collect([with_it, without]).evaluations
    assert (first.accuracy, first.gap, first.categories) == (second.accuracy, second.gap, second.categories)


def test_a_directory_of_runs_stands_for_them_and_none_is_read_twice(inputs):
    found = collect([inputs.noise, inputs.noise / "snr10"])
    assert [run.label for run in found.evaluations] == ["snr0", "snr10"]


def test_directories_of_one_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        runs.evaluation(tmp_path / name / "run", questions=8, clips=0)
    runs.evaluation(tmp_path / "c" / "other", questions=8, clips=0)
    found = collect([tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c" / "other"])
    assert [run.label for run in found.evaluations] == ["a/run", "b/run", "other"]


def test_a_training_run_with_settings_is_no_evaluation(tmp_path):
    directory = runs.training(tmp_path / "t", steps=2)
    (directory / "run.json").write_text(json.dumps({"kind": "training", "alpha": 1.0}))
    found = collect([directory])
    assert not found.evaluations
    assert found.trainings[0].info["alpha"] == 1.0


def test_a_step_that_comes_again_counts_as_it_came_last(tmp_path):
    directory = runs.training(tmp_path / "t", steps=2, rollouts=False)
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "metrics": {"tars/reward_gap": 0.125, "flag": true, "inf": Infinity}}\n')
    [run] = collect([directory]).trainings
    assert [step for step, _ in run.steps] == [1, 2]
    assert run.steps[1][1]["tars/reward_gap"] == 0.125
    assert not {"flag", "inf"} & set(run.steps[1][1])


def broken_run(path):
    return runs.evaluation(path, questions=8, clips=0)


def of_another_version(path):
    edit(broken_run(path) / "run.json", format=2)
    return path, ["run.json", "expected 1, got 2", "evaluate again"]


def with_a_summary_of_another_version(path):
    edit(broken_run(path) / "summary.json", format=7)
    return path, ["summary.json", "expected format 1, got 7", "delete it"]


def with_a_summary_of_other_results(path):
    edit(broken_run(path) / "summary.json", questions=9)
    return path, ["summary.json", "9 questions", "of 8", "delete it"]


def with_results_lost(path):
    results = runs.evaluation(path) / "results.jsonl"
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:-2]))
    (path / "summary.json").unlink()
    return path, ["results.jsonl", "got those of 119", "evaluate --overwrite"]


def with_half_a_summary(path):
    (broken_run(path) / "summary.json").write_text('{"format": 1, "questions": 8}')
    return path, ["summary.json", "modalities", "delete it"]


def with_a_corrupt_row(path):
    with (broken_run(path) / "results.jsonl").open("a") as file:
        file.write('{"id": "q1"\n')
    return path, ["results.jsonl", "line 17", "evaluate"]


def drift_of_another_version(path):
    edit(runs.drift(path) / "drift.json", format=3)
    return path, ["drift.json", "expected format 1, got 3", "measure again"]


def drift_without_curves(path):
    runs.drift(path)
    (path / "drift.json").write_text('{"format": 1, "behavior": []}')
    return path, ["drift.json", "models", "measure again"]


def comparison_of_another_version(path):
    path.mkdir()
    file = path / "c.json"
    file.write_text('{"kind": "comparison", "format": 0}')
    return file, ["c.json", "expected format 1, got 0", "compare again"]


def json_of_something_else(path):
    path.mkdir()
    file = path / "c.json"
    file.write_text('{"hello": 1}')
    return file, ["c.json", "tars-rewards compare", "kind None"]


def an_unknown_directory(path):
    path.mkdir()
    (path / "notes.txt").write_text("x")
    return path, ["run.json", "drift.json", "metrics.jsonl", "a directory with notes.txt"]


def nothing_there(path):
    return path, ["nothing of that name"]


def metrics_of_another_kind(path):
    path.mkdir()
    (path / "metrics.jsonl").write_text('{"loss": 1}\n')
    return path, ["metrics.jsonl", '"step": 1', "loss"]


def metrics_cut_short(path):
    with (runs.training(path, steps=2) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "da')
    return path, ["metrics.jsonl", "line 3", "delete"]


def rollouts_without_a_step(path):
    path.mkdir()
    (path / "rollouts.jsonl").write_text('{"id": "q", "modality": "text", "sample_id": 0, "completion": ""}\n')
    return path, ["rollouts.jsonl", "without step"]


BROKEN = [
    of_another_version, with_a_summary_of_another_version, with_a_summary_of_other_results, with_half_a_summary,
    with_results_lost, with_a_corrupt_row, drift_of_another_version, drift_without_curves, comparison_of_another_version,
    json_of_something_else, an_unknown_directory, nothing_there, metrics_of_another_kind, metrics_cut_short,
    rollouts_without_a_step,
]  # fmt: skip


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_what_cannot_be_used_is_named_with_its_remedy(make, tmp_path):
    path, expected = make(tmp_path / "given")
    with pytest.raises(InputError) as caught:
        collect([path])
    assert "given" in str(caught.value)
    for words in expected:
        assert words in str(caught.value)


def test_all_problems_come_at_once_and_nothing_is_written(tmp_path):
    one, _ = of_another_version(tmp_path / "one")
    other, _ = an_unknown_directory(tmp_path / "other")
    with pytest.raises(InputError, match="2 of the report's inputs") as caught:
        write_report([one, other], tmp_path / "report.html")
    assert len(caught.value.problems) == 2
    assert not list(tmp_path.glob("report*"))


def test_a_report_of_nothing(tmp_path):
    with pytest.raises(InputError, match="got nothing"):
        write_report([], tmp_path / "report.html")


def test_a_page_is_asked_for_by_its_name(inputs, tmp_path):
    with pytest.raises(InputError, match=r"such as report\.html"):
        write_report([inputs.before], tmp_path / "report.pdf")


def test_a_page_that_cannot_be_written(inputs, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "report.html").mkdir()
    for out, expected in (
        (tmp_path / "file/report.html", "a directory to write to"),
        (tmp_path / "report.html", "got a dir"),
    ):
        with pytest.raises(InputError, match=expected):
            write_report([inputs.before], out)


def test_half_a_character_stops_no_report(tmp_path):
    run = runs.evaluation(tmp_path / "run", questions=8, model="half one")
    for name in ("run.json", "results.jsonl"):
        path = run / name
        path.write_text(path.read_text().replace("half one", "half \\ud83d").replace("step by step", "step \\ud83d"))
    written = write_report([run], tmp_path / "report.html")
    assert "half ?" in written.page.read_text(encoding="utf-8")
    assert "step ?" in written.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_what_is_not_installed_is_said_before_anything_is_written(name, inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"needs {name}.*pip install 'tars-rewards\[report\]'"):
        write_report([inputs.before], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "setting",
    [{"questions": -1}, {"clips": 1.5}, {"clip_megabytes": 0}, {"completion_characters": 3}, {"questions": True}],
)
def test_settings_out_of_range(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        ReportSettings(**setting)
