"""A report of everything there is, and a real browser to open it in."""

import json
from types import SimpleNamespace

import pytest
import report_runs as runs

from tars_rewards.evaluation.compare import compare_runs
from tars_rewards.report.settings import ReportSettings
from tars_rewards.report.write import write_report


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """One of each kind, and a few more evaluations."""
    root = tmp_path_factory.mktemp("inputs")
    before = runs.evaluation(root / "before", speech=0.55, text=0.8, model="models/tiny-omni")
    after = runs.evaluation(root / "after", speech=0.7, text=0.82, seed=3, model="runs/tars")
    noise = root / "noise"
    for snr in (0.0, 10.0):
        runs.evaluation(
            noise / f"snr{snr:g}",
            speech=0.4 + snr / 100,
            seed=5,
            clips=1,
            condition={"snr_db": snr, "speed": 1.0, "seed": 0},
        )
    comparison = root / "against.json"
    comparison.write_text(json.dumps(compare_runs([before, after]).to_json()))
    return SimpleNamespace(
        root=root,
        before=before,
        after=after,
        noise=noise,
        comparison=comparison,
        drift=runs.drift(root / "drift"),
        training=runs.training(root / "grpo"),
    )


@pytest.fixture(scope="session")
def everything(inputs, tmp_path_factory):
    """A report of all of it."""
    out = tmp_path_factory.mktemp("everything") / "report.html"
    paths = [inputs.before, inputs.after, inputs.noise, inputs.comparison, inputs.drift, inputs.training]
    return write_report(paths, out, ReportSettings(questions=8, clips=5))


@pytest.fixture(scope="session")
def alone(inputs, tmp_path_factory):
    """A report of one evaluation run."""
    return write_report([inputs.before], tmp_path_factory.mktemp("alone") / "report.html", ReportSettings(questions=4))
