"""The benchmarks' own bookkeeping: a figure is kept beside its goal, and what is missing or missed is shown."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def results(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("results", BENCHMARKS / "results.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "results", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results" / "latest.json")
    return module


def test_a_figure_is_kept_with_its_goal_and_the_machine(results):
    assert results.record("import/help", 0.4, rounds=5, interval=(0.3, 0.5), details={"seconds": [0.4]})
    assert not results.record("capture/extra_forward/time", 399.0, rounds=5)
    results.unit_cost("reward/columns", 0.1, "s", rounds=7)
    kept = json.loads(results.RESULTS.read_text())
    assert kept["rows"]["import/help"] == {
        "figure": 0.4, "met": True, "rounds": 5, "interval": [0.3, 0.5], "details": {"seconds": [0.4]}, "environment": "verl",
    }  # fmt: skip
    assert kept["rows"]["capture/extra_forward/time"]["met"] is False
    assert kept["unit_costs"]["reward/columns"]["figure"] == 0.1
    assert kept["machine"]["cores"] > 0
    assert "torch" in kept["software"]["verl"]


def test_a_figure_without_a_goal_is_refused(results):
    with pytest.raises(KeyError):
        results.record("import/nothing", 1.0, rounds=1)


def test_the_table_counts_what_was_not_measured_as_not_met(results, capsys):
    for name, goal in results.GOALS.items():
        if goal.bound is not None:
            results.record(name, goal.bound, rounds=5)
    assert results.show()
    results.record("step/verl", 1.03, rounds=5, interval=(1.01, 1.05))
    assert not results.show()
    assert "1.01 to 1.05" in capsys.readouterr().out
    kept = json.loads(results.RESULTS.read_text())
    del kept["rows"]["step/verl"]
    results.RESULTS.write_text(json.dumps(kept))
    assert not results.show()
    table = capsys.readouterr().out
    assert "not measured" in table
    assert "[batch, layers, hidden]" in table


def test_a_figure_without_a_bound_is_shown_where_it_was_measured_and_never_missed(results, capsys):
    for name, goal in results.GOALS.items():
        if goal.bound is not None:
            results.record(name, goal.bound, rounds=5)
    assert results.show()
    what = results.GOALS["step/verl/demo"].what
    assert what[:30] not in capsys.readouterr().out
    assert results.record("step/verl/demo", 9.0, rounds=5)
    assert results.show()
    assert what[:30] in capsys.readouterr().out


def test_the_committed_results_are_of_these_goals():
    kept = json.loads((BENCHMARKS / "results" / "latest.json").read_text())
    shown = subprocess.run(
        [sys.executable, str(BENCHMARKS / "results.py")], capture_output=True, text=True, check=False
    )
    assert "not measured" not in shown.stdout
    assert shown.returncode == (0 if all(row["met"] for row in kept["rows"].values()) else 1)
    for name in ("processor", "cores", "memory_gib"):
        assert kept["machine"][name]
