"""What one run says, against `modality_gap` and numbers by hand."""

import json

import numpy as np
import pytest
from evaluation_runs import make_info, make_rows, make_run
from rich.console import Console

from tars_rewards import modality_gap
from tars_rewards.errors import InputError
from tars_rewards.evaluation.records import write_info, write_results
from tars_rewards.evaluation.statistics import QuestionBootstrap, Resampling
from tars_rewards.evaluation.summary import summarize, summary_table, write_summary

SPEECH = [1, 0, 0, 1, 0, 1, 0, 0, 1, 0] * 20
TEXT = [1, 1, 0, 1, 1, 1, 0, 0, 1, 1] * 20
CATEGORIES = (["law"] * 5 + ["physics"] * 3 + [None] * 2) * 20


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", {"speech": SPEECH, "text": TEXT}, categories=CATEGORIES)


def test_figures_are_those_of_modality_gap(run):
    summary = summarize(run)
    oracle = modality_gap([bool(each) for each in SPEECH + TEXT], ["speech"] * 200 + ["text"] * 200)
    assert summary.modalities["speech"].accuracy.value == oracle.target_accuracy == 0.4
    assert summary.modalities["text"].accuracy.value == oracle.anchor_accuracy
    assert summary.gap.value == pytest.approx(oracle.gap)
    assert summary.own_text_ratio.value == pytest.approx(oracle.own_ratio)
    assert summary.recovery_rate.value == pytest.approx(oracle.recovery_rate)
    assert (summary.denominator, summary.denominator_name) == (oracle.denominator, oracle.denominator_name)


def test_intervals(run):
    summary = summarize(run)
    assert summary.modalities["speech"].accuracy.low == pytest.approx(0.335, abs=0.015)  # 0.4 -+ 1.96 x 0.0346
    assert summary.modalities["speech"].accuracy.high == pytest.approx(0.47, abs=0.015)
    assert summary.gap.low == pytest.approx(0.3 - 1.96 * np.sqrt(0.3 * 0.7 / 200), abs=0.015)
    ratio, rate = summary.own_text_ratio, summary.recovery_rate
    assert (rate.low, rate.high) == pytest.approx((100 * ratio.low, 100 * ratio.high))


def test_a_run_against_its_own_text_as_backbone_is_the_same(run):
    """The denominator's uncertainty is paired by question, wherever it comes from."""
    own, backbone = summarize(run), summarize(run, backbone=run)
    assert backbone.recovery_rate == own.recovery_rate
    assert backbone.denominator_name == f"text of tiny ({run})"


def test_backbone_by_hand(run, tmp_path):
    backbone = make_run(
        tmp_path / "backbone", {"text": [1, 1, 1, 1, 0] * 40}, model="backbone", prompts="other template"
    )
    summary = summarize(run, backbone=backbone)
    assert summary.recovery_rate.value == pytest.approx(100 * 0.4 / 0.8)
    assert summary.denominator == pytest.approx(0.8)
    assert summary.denominator_name == f"text of backbone ({backbone})"
    assert summary.own_text_ratio.value == pytest.approx(0.4 / 0.7)
    assert list(summary.modalities) == ["speech", "text"]


@pytest.mark.parametrize(
    ("verdicts", "changed", "message"),
    [
        ({"speech": [1] * 200}, {}, "expected answers to written questions, got speech alone"),
        ({"text": [1] * 10}, {}, "has 190 questions"),
        ({"text": [1] * 200}, {"extractor": "xfinder"}, "answer extractor differ"),
    ],
    ids=["no text", "other questions", "other extractor"],
)
def test_backbone_that_is_none(run, tmp_path, verdicts, changed, message):
    backbone = make_run(tmp_path / "backbone", verdicts, **changed)
    with pytest.raises(InputError, match=message):
        summarize(run, backbone=backbone)


def test_categories(run):
    categories = summarize(run).categories
    assert list(categories) == ["law", "physics"]  # what has no category is in none
    assert (categories["law"].questions, categories["physics"].questions) == (100, 60)
    assert categories["law"].accuracy["speech"].value == pytest.approx(0.4)
    assert categories["law"].gap.value == pytest.approx(0.8 - 0.4)
    assert categories["physics"].gap.value == pytest.approx(0.0)
    assert categories["physics"].gap.high > 0.0


@pytest.mark.parametrize("modality", ["speech", "text"])
def test_one_modality(tmp_path, modality):
    summary = summarize(make_run(tmp_path, {modality: SPEECH}, categories=CATEGORIES))
    assert list(summary.modalities) == [modality]
    missing = (
        summary.gap,
        summary.own_text_ratio,
        summary.recovery_rate,
        summary.denominator,
        summary.denominator_name,
    )
    assert missing == (None,) * 5
    assert summary.categories["law"].gap is None
    assert "MRR" not in printed(summary)


def test_speech_alone_with_a_backbone(run, tmp_path):
    """The recovery rate needs no text of the model's own."""
    alone = make_run(tmp_path / "alone", {"speech": SPEECH})
    backbone = make_run(tmp_path / "backbone", {"text": TEXT})
    summary = summarize(alone, backbone=backbone)
    assert summary.recovery_rate == summarize(run).recovery_rate
    assert summary.own_text_ratio is None


def test_a_text_accuracy_of_zero_has_no_ratio(tmp_path):
    summary = summarize(make_run(tmp_path, {"speech": [1, 0], "text": [0, 0]}))
    assert summary.own_text_ratio.value is summary.recovery_rate.value is summary.own_text_ratio.low is None
    assert summary.denominator == 0.0
    json.dumps(summary.to_json(), allow_nan=False)


def test_rates_length_and_speed(tmp_path):
    rows = make_rows({"speech": [1, 1, 0, 1]}, seconds=0.25)  # 10 tokens each; wrong ones are unparsed and truncated
    unknown = [type(row)(**{**vars(row), "id": f"{row.id}b", "tokens": None, "seconds": None}) for row in rows[:1]]
    untimed = [type(row)(**{**vars(row), "id": f"{row.id}c", "tokens": 40, "seconds": None}) for row in rows[:1]]
    rows += unknown + untimed
    write_info(tmp_path, make_info(rows))
    write_results(tmp_path, rows)
    speech = summarize(tmp_path).modalities["speech"]
    assert (speech.rows, speech.unparsed, speech.truncated) == (6, 1 / 6, 1 / 6)
    assert speech.mean_tokens == 80 / 5
    assert speech.tokens_per_second == 40 / 1.0


def test_no_lengths_at_all(tmp_path):
    rows = [type(row)(**{**vars(row), "tokens": None}) for row in make_rows({"speech": [1]})]
    write_info(tmp_path, make_info(rows))
    write_results(tmp_path, rows)
    speech = summarize(tmp_path).modalities["speech"]
    assert speech.mean_tokens is speech.tokens_per_second is None


def test_samples_of_a_question_stay_together(tmp_path):
    """Four equal samples of each question tell no more than one."""
    one = summarize(make_run(tmp_path / "one", {"speech": SPEECH})).modalities["speech"].accuracy
    four = summarize(make_run(tmp_path / "four", {"speech": [[each] * 4 for each in SPEECH]})).modalities["speech"]
    assert four.rows == 800
    assert four.accuracy.value == one.value
    assert four.accuracy.high - four.accuracy.low == pytest.approx(one.high - one.low, abs=0.01)


def test_samples_that_differ_tell_more(tmp_path):
    right = np.random.default_rng(0).random((40, 8)) < 0.6
    accuracy = summarize(make_run(tmp_path, {"speech": right})).modalities["speech"].accuracy
    oracle = QuestionBootstrap({"speech": right.mean(axis=1)}, samples=8)
    assert accuracy == oracle.estimate(lambda mean: mean["speech"])


def test_json(run):
    summary = summarize(run, resampling=Resampling(resamples=500, seed=3))
    write_summary(run, summary)
    content = json.loads((run / "summary.json").read_text())
    assert content["format"] == 1
    assert content["gap"] == {"value": summary.gap.value, "low": summary.gap.low, "high": summary.gap.high}
    assert content["categories"]["law"]["accuracy"]["text"]["value"] == pytest.approx(0.8)
    assert content["resampling"] == {"level": 0.95, "resamples": 500, "seed": 3}
    assert summarize(run, resampling=Resampling(resamples=500, seed=3)) == summary


def printed(summary):
    console = Console(width=150)
    with console.capture() as capture:
        console.print(summary_table(summary))
    return capture.get()


def test_names_are_shown_as_they_are(run, tmp_path):
    """Square brackets are markup to rich."""
    run = make_run(
        tmp_path / "[red]", {"text": [1], "speech": [1]}, categories=["[law]"], model="m[/]", benchmark="[b]x"
    )
    text = printed(summarize(run, backbone=run))
    for words in ("m[/] on [b]x", "[law]", "[red]"):
        assert words in text


def test_table(run):
    text = printed(summarize(run))
    for words in ("tiny on obqa: 200 questions", "speech accuracy", "0.400", "gap (text - speech)", "0.300", "57.14"):
        assert words in text
    assert "MRR = 100 x spoken accuracy / 0.700, accuracy of own text" in text
    assert "physics" in text
