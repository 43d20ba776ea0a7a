"""The file of results: what is added is found again, whoever adds at the same time, and the file stays small."""

import json
import multiprocessing
import random

import experiment_results as results


def a_run(seed, *, arm="tars", steps=4, settings=("lr=1",), speech=0.5):
    return {
        "base": "natural", "arm": arm, "seed": seed, "steps": steps, "machine": "m", "settings": list(settings),
        "seconds": {"training": 1.5}, "log": {"entropy": [0.1, None], "seconds": [1, 2]},
        "checkpoints": [{"step": steps, "sets": {"dev": {"speech_accuracy": speech}}}],
    }  # fmt: skip


def test_there_are_none_before_the_first(tmp_path):
    assert results.load(tmp_path / "results.json") == []


def test_a_run_is_found_again_and_replaces_itself_alone(tmp_path):
    path = tmp_path / "results.json"
    for run in (a_run(1), a_run(0), a_run(1, arm="grpo"), a_run(1, settings=("lr=2",)), a_run(1, steps=8)):
        results.add(run, path)
    results.add(a_run(1, speech=0.75), path)
    loaded = results.load(path)
    assert len(loaded) == 5
    assert results.find(loaded, a_run(1)) == a_run(1, speech=0.75)
    assert results.find(loaded, a_run(1, arm="grpo")) == a_run(1, arm="grpo")
    assert results.find(loaded, a_run(2)) is None


def test_the_order_of_adding_does_not_show(tmp_path):
    runs = [a_run(seed, arm=arm) for seed in range(12) for arm in ("tars", "grpo")]
    for name in ("one", "other"):
        for run in runs:
            results.add(run, tmp_path / name)
        random.Random(0).shuffle(runs)
    text = (tmp_path / "one").read_text()
    assert text == (tmp_path / "other").read_text()
    assert [run["seed"] for run in json.loads(text)["runs"]][:12] == list(range(12))  # as numbers, not as words


def test_a_run_that_is_added_leaves_the_lines_of_others_alone(tmp_path):
    path = tmp_path / "results.json"
    results.add(a_run(0), path)
    before = path.read_text().splitlines()
    results.add(a_run(1), path)
    after = path.read_text().splitlines()
    assert after[: len(before) - 2] == before[:-2]


def test_figures_are_written_with_few_digits_and_settings_as_they_are(tmp_path):
    results.add(a_run(0, speech=0.2916000000000001, settings=("lr=0.00012345678",)), tmp_path / "results.json")
    [run] = results.load(tmp_path / "results.json")
    assert run["checkpoints"][0]["sets"]["dev"]["speech_accuracy"] == 0.2916
    results.add(a_run(0, speech=1 / 3), tmp_path / "results.json")
    assert "0.33333}" in (tmp_path / "results.json").read_text()
    assert run["settings"] == ["lr=0.00012345678"]


def _add(arguments):
    seed, path = arguments
    results.add(a_run(seed), path)


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "results.json"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_add, [(seed, path) for seed in range(24)], chunksize=1)
    assert [run["seed"] for run in results.load(path)] == list(range(24))


def test_the_whole_experiment_stays_below_five_megabytes():
    numbers = random.Random(0)
    log = {f"metric/{index}": [round(numbers.random(), 3) for _ in range(200)] for index in range(31)}
    measures = {f"measure_{index}": round(numbers.random(), 4) for index in range(40)}
    outcomes = {modality: f"{numbers.getrandbits(2000):x}" for modality in ("speech", "text")}
    checkpoints = [{"step": step, "sets": {"dev": measures}} for step in (50, 150)]
    checkpoints += [
        {"step": 100, "sets": {"dev": measures, "test": measures | outcomes}},
        {"step": 200, "sets": {f"set_{index}": measures for index in range(7)} | {"test": measures | outcomes}},
    ]
    run = a_run(0) | {"log": log, "checkpoints": checkpoints}
    assert 110 * len(results.formatted([run])) < 5_000_000 * 1.25
