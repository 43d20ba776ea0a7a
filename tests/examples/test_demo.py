"""What both demos share: following a training, the table, the plots."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RESULT = {
    "questions": 200,
    "speech_accuracy": 0.6,
    "text_accuracy": 0.9,
    "own_text_ratio": 2 / 3,
    "layer_cosine": [0.9, 0.8],
}


def module(framework):
    """A framework's demo script, as a module."""
    spec = importlib.util.spec_from_file_location(f"{framework}_demo", EXAMPLES / framework / "demo.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def demo():
    import demo

    return demo


def training(demo, tmp_path, program):
    return demo.Training(
        command=[sys.executable, "-c", program],
        environment={"LOG": str(tmp_path / "log")},
        trained=tmp_path,
        settings=[],
    )


def test_every_step_has_a_progress_line_and_is_kept(demo, tmp_path, capsys):
    program = (
        "import json, os\n"
        "os.mkdir(os.environ['LOG'])\n"
        "with open(os.environ['LOG'] + '/metrics.jsonl', 'a') as file:\n"
        "    for step in (1, 2):\n"
        "        data = {'tars/accuracy/speech/mean': 0.5}\n"
        "        print(json.dumps({'step': step, 'data': data}), file=file, flush=True)\n"
    )
    records = demo.train(training(demo, tmp_path, program), tmp_path, 2)
    assert [record["step"] for record in records] == [1, 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step   1/2  speech acc  0.50  text acc   -  ")
    assert lines[1].startswith("step   2/2  ")
    assert re.search(r" \d+ s$", lines[1])


def test_a_step_whose_line_is_written_again_is_kept_once(demo, tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert demo.read_steps(path) == []
    path.write_text('{"step": 1, "data": {}}\n{"step": 2, "da')
    assert demo.read_steps(path) == [{"step": 1, "data": {}}]
    path.write_text('{"step": 1, "data": {"validation": 0.5}}\n{"step": 2, "data": {}}\n')
    assert demo.read_steps(path) == [{"step": 1, "data": {"validation": 0.5}}, {"step": 2, "data": {}}]


def test_a_failed_training_ends_the_demo_with_its_last_lines(demo, tmp_path):
    with pytest.raises(SystemExit, match=r"exit code 3; its last lines(.|\n)*out of luck"):
        demo.train(training(demo, tmp_path, "print('out of luck'); raise SystemExit(3)"), tmp_path, 1)


@pytest.mark.parametrize("framework", ["verl", "openrlhf"])
def test_a_demo_asks_for_the_model_the_data_and_the_steps(framework, tmp_path):
    import argparse

    args = argparse.Namespace(steps=3, seed=1, override=["mine"])
    found = module(framework).prepare(args, tmp_path / "out", tmp_path / "data", tmp_path / "base")
    words = " ".join(found.command)
    assert f"{tmp_path}/data/train.parquet" in words
    assert str(tmp_path / "base") in words
    assert found.command[-1] == "mine"
    assert found.trained.is_relative_to(tmp_path / "out")


def test_the_table_has_before_after_and_change(demo, capsys):
    after = {**RESULT, "speech_accuracy": 0.75}
    summary = {name: demo.with_recovery_rate(result, 0.9) for name, result in (("before", RESULT), ("after", after))}
    demo.print_table(summary)
    table = capsys.readouterr().out
    rows = {" ".join(line.split()[:-3]): line.split()[-3:] for line in table.splitlines() if line.count(".") >= 3}
    assert rows["speech accuracy"] == ["0.600", "0.750", "+0.150"]
    assert rows["gap (text - speech)"] == ["0.300", "0.150", "-0.150"]
    assert rows["MRR"] == ["66.667", "83.333", "+16.667"]
    assert rows["mean layer cosine"] == ["0.850", "0.850", "+0.000"]
    assert "MRR = 100 x speech accuracy / text accuracy before training (0.900)" in table


def test_what_does_not_exist_is_a_dash_and_no_plot(demo, tmp_path, capsys):
    nothing = {**RESULT, "text_accuracy": 0.0, "own_text_ratio": None, "layer_cosine": None}
    summary = {name: demo.with_recovery_rate(nothing, 0.0) for name in ("before", "after")}
    demo.print_table(summary)
    assert capsys.readouterr().out.count(" - ") >= 3
    demo.write_plots(tmp_path, [{"step": 1, "data": {"tars/accuracy/speech/mean": 0.5}}], summary)
    assert {path.name for path in tmp_path.glob("*.png")} == {"rewards.png", "layer_cosine.png"}
