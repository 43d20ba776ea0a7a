"""What is drawn: the figures are those of the runs, and uncertainty is what it says it is."""

import csv
import io
import math
from xml.dom import minidom

import matplotlib
import numpy as np
import pytest
import report_runs as runs
from matplotlib.image import imread
from scipy import stats

from tars_rewards.report.charts import RUN_LOOKS, Chart, Series
from tars_rewards.report.collect import collect
from tars_rewards.report.drift_charts import layer_charts, position_charts
from tars_rewards.report.evaluation_charts import category_charts, condition_charts, evaluation_charts
from tars_rewards.report.plots import _PALETTES, COLUMNS, _figure, _style, draw
from tars_rewards.report.published import MODELS, layer_means
from tars_rewards.report.records import Estimate, TrainingRun
from tars_rewards.report.training_charts import _wilson, training_charts

CHART = Chart(
    "name", "title", "caption", "step", "reward",
    [
        Series("speech", [1, 2, 3], [Estimate(0.5, 0.4, 0.6, 8), Estimate(None), Estimate(0.7, None, None, 8)], "speech"),
        Series("paper", [1, 3], [Estimate(0.9), Estimate(0.9)], "published"),
    ],
)  # fmt: skip


def series(chart, name):
    return next(each for each in chart.series if each.name == name)


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_chart_as_a_table():
    rows = list(csv.DictReader(io.StringIO(draw(CHART).csv)))
    assert tuple(rows[0]) == COLUMNS
    assert [row["value"] for row in rows] == ["0.5", "", "0.7", "0.9", "0.9"]
    assert [row["source"] for row in rows] == ["measured"] * 3 + ["published"] * 2
    assert rows[0]["low"] == "0.4"
    assert rows[0]["n"] == "8"


def test_a_chart_in_words():
    assert CHART.in_words() == ("Line chart of reward by step. speech: 0.5 at 1, 0.7 at 3. paper: 0.9 at 1, 0.9 at 3.")


def test_a_chart_as_pictures(tmp_path):
    picture = draw(CHART)
    pixels = imread(io.BytesIO(picture.png))
    assert pixels.shape[0] > 200
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20  # something is drawn
    assert picture.light_svg != picture.dark_svg
    assert picture.light_svg == draw(CHART).light_svg  # the same data is the same file
    assert _PALETTES["light"]["speech"].encode() in picture.light_svg
    assert _PALETTES["dark"]["speech"].encode() in picture.dark_svg


def test_names_are_shown_as_they_are():
    """Neither formulas nor left out of the legend, and long ones in lines."""
    names = ["_run", "$x$", "$", "a-very-long-name-of-a-run-" * 4]
    chart = Chart("n", "t", "c", "x", "y", [Series(name, [0], [Estimate(0.5)], "speech") for name in names])
    with matplotlib.rc_context(_style(_PALETTES["light"])):
        figure = _figure(chart, _PALETTES["light"])
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        figure.canvas.draw()
        assert figure.legends[0].get_window_extent().x0 >= 0
        assert figure.legends[0].get_window_extent().width <= figure.bbox.width
    assert [text.strip().replace("\n", "") for text in shown] == names
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize("character", ["\x00", "\x1c", "\x1b", "\ud800", "\uffff"])
def test_a_name_that_no_picture_can_show_spoils_none(character):
    row = f"on{character}e"
    chart = Chart("n", "t", "c", "x", "y", [Series(row, [0], [Estimate(0.5)], "speech")] * 2, rows=[row])
    picture = draw(chart)
    minidom.parseString(picture.light_svg)
    assert row in picture.csv


@pytest.mark.parametrize(("theme", "background"), [("light", "#ffffff"), ("dark", "#19212a")])
def test_colours_can_be_seen(theme, background):
    """WCAG: 4.5 for words, 3 for what must be made out."""
    for name, color in _PALETTES[theme].items():
        if name != "grid":
            assert contrast(color, background) >= (4.5 if name == "ink" else 3.0), name


def test_accuracy_of_every_run_and_published_ones_apart(inputs):
    found = collect([inputs.before, inputs.after])
    measured, published = evaluation_charts(found.evaluations, published=True)
    assert measured.rows == ["before", "after"]
    assert series(measured, "speech").points == [run.accuracy["speech"] for run in found.evaluations]
    assert not any(each.published for each in measured.series)
    assert all(each.published and "published" in each.name for each in published.series)
    assert published.limits == measured.limits
    assert series(published, "speech, published").points[3].value == MODELS[3].mmsu[0] / 100
    assert list(series(published, "text, published").x) == [0, 3, 4, 5]  # two models have none
    assert len(evaluation_charts(found.evaluations, published=False)) == 1


def test_published_ones_only_beside_their_benchmark(tmp_path):
    run = runs.evaluation(tmp_path / "r", questions=8, clips=0, benchmark="data/mine.jsonl")
    [chart] = evaluation_charts(collect([run]).evaluations, published=True)
    assert chart.title == "Accuracy on mine.jsonl"


def test_gap_by_category(inputs):
    found = collect([inputs.before, inputs.after, inputs.noise])
    charts = category_charts(found.evaluations)
    assert [len(chart.series) for chart in charts] == [2, 1, 1]  # what was heard in another way is not beside it
    assert charts[0].rows == [f"{name} (n\u00a0=\u00a020)" for name in sorted(runs.KINDS)]
    assert series(charts[0], "after").points == [each.gap for each in found.evaluations[1].categories]


def test_no_look_is_used_twice_in_a_chart_of_categories(inputs, tmp_path):
    many = [
        runs.evaluation(tmp_path / f"r{i}", questions=24, clips=0, summary=False) for i in range(len(RUN_LOOKS) + 1)
    ]
    for chart in category_charts(collect(many).evaluations):
        looks = [each.look for each in chart.series]
        assert len(set(looks)) == len(looks)


def test_accuracy_by_noise(inputs, tmp_path):
    quiet = runs.evaluation(tmp_path / "clean", seed=5, clips=0, condition={"snr_db": None, "speed": 1.0, "seed": 0})
    [chart] = condition_charts(collect([inputs.noise, quiet]).evaluations)
    loud, less = collect([inputs.noise]).evaluations
    assert list(series(chart, "speech").x) == [0.0, 10.0]
    assert series(chart, "speech").points == [loud.accuracy["speech"], less.accuracy["speech"]]
    assert [each.value for each in series(chart, "gap (text − speech)").points] == [loud.gap.value, less.gap.value]
    assert "speech, without noise" in [each.name for each in chart.series]
    assert condition_charts(collect([inputs.before, inputs.after]).evaluations) == []


def test_runs_that_differ_in_more_make_no_curve(inputs, tmp_path):
    other = runs.evaluation(
        tmp_path / "other", model="another", clips=0, condition={"snr_db": 20.0, "speed": 1.0, "seed": 0}
    )
    [chart] = condition_charts(collect([inputs.noise, other]).evaluations)
    assert list(series(chart, "speech").x) == [0.0, 10.0]


def test_layers_before_and_after(inputs):
    [drift] = collect([inputs.drift]).drifts
    charts = {chart.name: chart for chart in layer_charts(drift, layer_means())}
    chart = charts["layers-forced-cosine-drift"]
    curve = next(
        c for c in drift.curves if (c.run, c.states, c.measure, c.pairs) == ("model", "forced", "cosine", "matched")
    )
    after = series(chart, "after: tars")
    assert after.points == curve.points
    assert list(after.x) == list(range(1, 13))
    assert series(chart, "before: tiny-omni").look != after.look
    assert sum(each.published for each in chart.series) == 2
    assert series(chart, "published, MMSU, base (0.9521)").points[0].value == 0.9521
    assert not any(each.published for each in charts["layers-rollouts-cka-drift"].series)  # nothing is published of it
    change = charts["layers-forced-cosine-drift-difference"]
    assert change.zero
    assert [each.name for each in change.series] == ["after: tars less before: tiny-omni"]
    assert not any(each.published for c in layer_charts(drift, {}) for each in c.series)


def test_layers_of_one_model(tmp_path):
    [drift] = collect([runs.drift(tmp_path / "d", against=False)]).drifts
    charts = layer_charts(drift, {})
    assert not [chart for chart in charts if "difference" in chart.name]
    assert {each.name for each in charts[0].series} == {"tars", "tars, mismatched"}


def test_places_along_the_completion(inputs):
    [drift] = collect([inputs.drift]).drifts
    charts = {chart.name: chart for chart in position_charts(drift)}
    assert list(series(charts["positions-tenths-cosine-drift"], "after: tars").x) == list(range(1, 11))
    assert list(series(charts["positions-tokens-cosine-drift"], "after: tars").x) == [0, 32, 64, 96, 128]
    last = charts["positions-tokens-cosine-drift-difference"].series[0].points[-1]
    assert last == Estimate(None, None, None, 80)
    draw(charts["positions-tokens-cosine-drift-difference"])  # a place without a value does no harm


def test_terms_by_step_and_modality(inputs):
    [run] = collect([inputs.training]).trainings
    charts = {chart.title: chart for chart in training_charts(run)}
    assert [title for title in charts if title.startswith("Reward: ")] == [
        "Reward: total", "Reward: accuracy", "Reward: format", "Reward: representation", "Reward: behavior",
    ]  # fmt: skip
    total = series(charts["Reward: total"], "text")
    metrics = dict(run.steps)[7]
    assert total.points[6].value == metrics["tars/total/text/mean"]
    low, high = stats.norm.interval(0.95, total.points[6].value, 0.2 * math.sqrt(8 / 7) / math.sqrt(8))
    assert (total.points[6].low, total.points[6].high) == pytest.approx((low, high))  # 8 questions, not 32 completions
    assert total.points[6].n == 8
    assert [each.name for each in charts["Reward: representation"].series] == ["speech"]
    assert list(series(charts["Accuracy in validation"], "speech").x) == [8, 16, 24]
    assert charts["Gap in base reward"].series[0].points[0].low is None
    without = charts["Questions without a reference"].series[0].points[0]
    assert 0 < without.low < without.value == 0.05 < without.high
    assert max(each.high for each in series(charts["Reward: representation"], "speech").points) <= 1.0


def test_wilson_is_that_of_scipy():
    for right, n in ((0, 8), (3, 8), (200, 200), (120, 200)):
        expected = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert _wilson(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_band_of_identical_accuracies_is_not_certain(tmp_path):
    run = TrainingRun("r", [(1, {"tars/accuracy/text/mean": 1.0, "tars/accuracy/text/std": 0.0,
                                 "tars/accuracy/text/count": 32.0, "tars/pairs/count": 8.0})], [], {}, tmp_path)  # fmt: skip
    [chart] = training_charts(run)
    assert chart.series[0].points[0].low == pytest.approx(stats.binomtest(8, 8).proportion_ci(method="wilson").low)


def test_from_rollouts_where_there_are_no_metrics(tmp_path):
    [run] = collect([runs.training(tmp_path / "t", metrics=False)]).trainings
    charts = {chart.title: chart for chart in training_charts(run)}
    assert set(charts) == {"Reward: total", "Reward: accuracy", "Reward: format", "Reward: representation"}
    point = series(charts["Reward: total"], "speech").points[0]
    assert (point.value, point.n) == (2.0, 2)  # two questions, each with samples of 1.5 and 2.5


def test_intervals_over_questions_are_students(tmp_path):
    totals = {"a": [1.0, 2.0], "b": [3.0], "c": [0.5, 0.5]}
    rows = [
        {"step": 1, "id": name, "modality": "text", "sample_id": i, "completion": "", "total": value}
        for name, values in totals.items()
        for i, value in enumerate(values)
    ]
    [chart] = training_charts(TrainingRun("r", [], rows, {}, tmp_path))
    expected = stats.t.interval(0.95, 2, np.mean([1.5, 3, 0.5]), stats.sem([1.5, 3, 0.5]))
    point = chart.series[0].points[0]
    assert (point.low, point.high) == pytest.approx(expected)
