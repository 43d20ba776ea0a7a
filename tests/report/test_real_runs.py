"""Reports of what the other commands really write."""

import json
import math
from dataclasses import replace

import pytest
from chat_server import ChatServer
from voicebench import write_mmsu

from tars_rewards import Question, TARSConfig
from tars_rewards.drift.run import measure_drift
from tars_rewards.drift.settings import DriftSettings
from tars_rewards.evaluation.compare import compare_runs
from tars_rewards.evaluation.evaluate import run
from tars_rewards.evaluation.settings import EvaluationSettings
from tars_rewards.report.collect import collect
from tars_rewards.report.settings import ReportSettings
from tars_rewards.report.write import write_report
from tars_rewards.scoring.scorer import Scorer

pytestmark = pytest.mark.slow


@pytest.fixture
def questions(clips):
    def completions(number):
        return {
            "speech": [f"<think>{number}, so</think><answer>The answer is {'AB'[number % 2]}.</answer>", "no idea"],
            "text": [f"<think>{number}</think><answer>The answer is B.</answer>", f"B, {number}"],
        }

    return [
        Question.from_row(
            {
                "id": f"q{n}",
                "prompt": f"Is it {n}?",
                "audio": str(clips[n]),
                "answer": "B",
                "completions": completions(n),
            }
        )
        for n in range(5)
    ]


def test_evaluations_under_noise_and_their_comparison(tmp_path):
    with ChatServer() as server:
        settings = EvaluationSettings(
            model="tiny", benchmark="mmsu", data=str(write_mmsu(tmp_path / "data")), out=str(tmp_path / "run"),
            url=server.url, max_new_tokens=64, progress=False, snr=(math.inf, 0.0, 10.0), clips=3,
        )  # fmt: skip
        done = run(settings)
        other = run(replace(settings, out=str(tmp_path / "again"), snr=(math.inf,)))
    comparison = tmp_path / "comparison.json"
    comparison.write_text(json.dumps(compare_runs([done[0].out, other[0].out]).to_json()))
    files = write_report([tmp_path / "run", tmp_path / "again", comparison], tmp_path / "report.html")
    text = files.page.read_text()
    assert [each.label for each in collect([tmp_path / "run"]).evaluations] == ["clean", "snr0", "snr10"]
    assert "Accuracy by SNR, mmsu" in text
    assert "noise at 10 dB" in text
    assert "exact McNemar" in text
    assert "5 of the 3074 questions" in text
    assert files.clips >= 3
    assert not files.clips_left_out


def test_drift_before_and_after(tiny, questions, tmp_path):
    settings = DriftSettings(sampling=None, bucket_tokens=8, resamples=200, config=TARSConfig(beta=0))
    drift = measure_drift(
        tiny / "qwen2_audio", questions, against=tiny / "qwen2_audio", settings=settings, device="cpu"
    )
    drift.write(tmp_path / "drift")
    [found] = collect([tmp_path / "drift"]).drifts
    cosine = next(each for each in drift.curves if (each.run, each.states, each.measure, each.pairs)
                  == ("model", "forced", "cosine", "matched"))  # fmt: skip
    read = next(each for each in found.curves if (each.run, each.states, each.measure, each.pairs)
                == ("model", "forced", "cosine", "matched"))  # fmt: skip
    assert [point.value for point in read.points] == pytest.approx(cosine.layers.mean.tolist())
    assert [point.low for point in read.points] == pytest.approx(cosine.layers.low.tolist())
    report = write_report([tmp_path / "drift"], tmp_path / "report.html")
    text = report.page.read_text()
    for measure in ("cosine", "centred cosine", "debiased linear CKA"):
        assert f"Similarity by layer: {measure}, same completion, forced" in text
    assert "answer agreement" in text
    assert report.figures >= 10


def test_rollouts_as_they_are_scored(questions, tmp_path):
    scorer = Scorer(None, config=TARSConfig(alpha=0.0, beta=0.0))
    with (tmp_path / "rollouts.jsonl").open("w") as file:
        for scored in scorer.score(questions):
            for row in scored.rows():
                file.write(json.dumps({**row, "step": 1}) + "\n")
    report = write_report([tmp_path], tmp_path / "report.html", ReportSettings(questions=2))
    text = report.page.read_text()
    assert "5 questions, 2 shown" in text
    assert "sample 2" in text
    assert "total 1.5" in text
    assert report.figures >= 3
