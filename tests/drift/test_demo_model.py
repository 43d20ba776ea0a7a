"""The demo's base model, which hears well: hearing a question must be closer to reading it than hearing another one."""

from pathlib import Path

import pandas as pd
import pytest

from tars_rewards import Question, TARSConfig
from tars_rewards.drift.run import measure_drift
from tars_rewards.drift.settings import DriftSettings
from tars_rewards.scoring.sampling import Sampling

EXAMPLE = Path(__file__).parents[2] / "examples" / "spoken_reasoning"
QUESTIONS = 24


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Directory of the base model, and held-out questions."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import make_data
    import model

    model.assemble(tmp_path / "model")
    table = pd.read_parquet(make_data.write_split(tmp_path, "test", QUESTIONS, seed=0, workers=1))
    questions = [
        Question.from_row(
            {"id": row.pair_id, "prompt": row.extra_info["question"], "audio": row.audios[0], "answer": row.answer}
        )
        for row in table[table["modality"] == "speech"].itertuples()
    ]
    return tmp_path / "model", questions


@pytest.mark.slow
def test_the_same_question_is_closer_than_another(example):
    model, questions = example
    settings = DriftSettings(
        sampling=Sampling(n=1, temperature=0, max_new_tokens=64), bucket_tokens=8, config=TARSConfig(beta=0)
    )
    drift = measure_drift(model, questions, settings=settings)
    margins = [curve for curve in drift.curves if curve.pairs == "margin"]
    assert len(margins) == 6
    for curve in margins:
        assert curve.overall.low[0] > 0, (curve.states, curve.measure)
        assert (curve.layers.low[1:] > 0).all(), (curve.states, curve.measure)
    mismatched = {(curve.states, curve.measure): curve for curve in drift.curves if curve.pairs == "mismatched"}
    for measure in ("centred", "cka"):  # what all completions share is taken out of these two
        assert abs(mismatched["rollouts", measure].overall.mean[0]) < 0.2
    assert mismatched["rollouts", "cosine"].overall.mean[0] > 0.4
    # The chain of thought repeats the question's facts first; then its own words count for more than the prompt.
    cosine = next(curve for curve in drift.trends if (curve.measure, curve.pairs) == ("cosine", "mismatched"))
    assert cosine.overall.low[0] > 0
    figures = {figure.name: figure.estimate.mean[0] for figure in drift.behavior}
    assert figures["speech_answered"] > 0.9
    assert 0.3 < figures["answer_agreement"] < 1
    assert 0 < figures["shared_tokens"] < 1
