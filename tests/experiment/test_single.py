"""One run: what is done again after an interruption, and what is not."""

import json

import experiment_results as results
import pytest
import single

IDENTITY = {"base": "natural", "arm": "grpo", "seed": 3, "steps": 8, "learning_rate": 1.0, "settings": ["lr=1"]}
UNTRAINED = {"base": "natural", "arm": "none", "seed": 0, "steps": 0, "learning_rate": None, "settings": []}


@pytest.fixture
def place(tmp_path):
    return single.Place(tmp_path)


def directory(place):
    out = place.run(IDENTITY)
    out.mkdir(parents=True)
    return out


def test_a_run_that_has_its_result_is_not_done_again(place):
    result = {**IDENTITY, "checkpoints": ["measured"]}
    (directory(place) / "result.json").write_text(json.dumps(result))
    assert single.run(place, IDENTITY) == result


def test_a_result_of_other_settings_is_no_result(place, monkeypatch):
    other = {**IDENTITY, "settings": ["lr=2"], "checkpoints": []}
    (directory(place) / "result.json").write_text(json.dumps(other))

    def train(*_):
        raise RuntimeError("trains")

    monkeypatch.setattr(single, "_trained", train)
    with pytest.raises(RuntimeError, match="trains"):
        single.run(place, IDENTITY)


def test_a_trained_run_goes_on_with_the_measuring_while_its_weights_are_there(place, tmp_path):
    out = directory(place)
    weights = tmp_path / "weights"
    weights.mkdir()
    left = {"identity": IDENTITY, "seconds": 1.0, "log": {"seconds": [1, 2]}, "models": {"8": str(weights)}}
    (out / "trained.json").write_text(json.dumps(left))
    assert single._trained(place, IDENTITY, out) == left


def test_the_denominator_is_the_bases_own_text_accuracy_on_each_set(place):
    out = place.run(UNTRAINED)
    out.mkdir(parents=True)
    sets = {"dev": {"text_accuracy": 0.9, "speech_accuracy": 0.5}, "test": {"text_accuracy": 0.8}}
    (out / "result.json").write_text(json.dumps({"checkpoints": [{"step": 0, "sets": sets}]}))
    assert single.text_accuracy(place, "natural") == {"dev": 0.9, "test": 0.8}


def test_runs_with_other_learning_rates_are_elsewhere(place):
    assert place.run({**IDENTITY, "learning_rate": 3e-5}) != place.run(IDENTITY)


def test_the_machine_is_named():
    assert " x " in single.machine()
    assert results.identity(IDENTITY) == ("natural", "grpo", 8, ("lr=1",), 3)
