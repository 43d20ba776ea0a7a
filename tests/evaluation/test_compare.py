"""Runs against each other, from files to verdicts."""

import json

import numpy as np
import pytest
from evaluation_runs import make_run
from rich.console import Console
from scipy import stats

from tars_rewards.errors import InputError
from tars_rewards.evaluation.compare import compare_outcomes, compare_runs, comparison_table
from tars_rewards.evaluation.outcomes import Asked, Outcomes, Totals, read_outcomes
from tars_rewards.evaluation.records import RunInfo
from tars_rewards.evaluation.statistics import Resampling, difference, holm

N = 200
QUICK = Resampling(resamples=400)


def verdicts(seed, speech=0.6, text=0.8):
    """Answers of a model; questions are as hard for everyone, so that models agree on most."""
    hardness = np.random.default_rng(99).random(N)
    luck = np.random.default_rng(seed).normal(0, 0.1, size=(2, N))
    return {"speech": hardness + luck[0] < speech, "text": hardness + luck[1] < text}


@pytest.fixture
def runs(tmp_path):
    """A base model, a method with three seeds, and one with a single run."""
    made = {"base": verdicts(0), "other": verdicts(9, speech=0.63)}
    made.update({f"tars{seed}": verdicts(seed, speech=0.72) for seed in (1, 2, 3)})
    return {name: make_run(tmp_path / name, each, model=name) for name, each in made.items()}


def find(comparison, arm, quantity):
    (found,) = [each for each in comparison.differences if (each.arm, each.quantity) == (arm, quantity)]
    return found


def test_two_runs_by_hand(runs):
    comparison = compare_runs([runs["base"], runs["tars1"]])
    base, tars = verdicts(0), verdicts(1, speech=0.72)
    found = find(comparison, "tars1", "speech")
    won = int((tars["speech"] & ~base["speech"]).sum())
    lost = int((base["speech"] & ~tars["speech"]).sum())
    assert (found.test, found.only_arm, found.only_first) == ("exact McNemar", won, lost)
    assert found.p == found.p_holm == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert found.estimate.value == pytest.approx((won - lost) / N)
    assert found.estimate.low < found.estimate.value < found.estimate.high
    closed = find(comparison, "tars1", "gap")
    assert closed.test == "paired bootstrap"
    assert closed.only_arm is None
    text = find(comparison, "tars1", "text").estimate.value
    assert closed.estimate.value == pytest.approx(text - found.estimate.value)


def test_arms_are_named_like_their_directories(runs, tmp_path):
    assert [arm.name for arm in compare_runs([runs["base"], runs["other"]]).arms] == ["base", "other"]
    twin = make_run(tmp_path / "deeper" / "base", verdicts(5))
    assert [arm.name for arm in compare_runs([runs["base"], twin]).arms] == [str(runs["base"]), str(twin)]


def test_order_within_a_file_does_not_matter(runs):
    before = compare_runs([runs["base"], runs["other"]])
    path = runs["other"] / "results.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert compare_runs([runs["base"], runs["other"]]) == before


def test_seeds_of_an_arm(runs):
    paths = [runs["base"], runs["tars1"], runs["tars2"], runs["tars3"]]
    comparison = compare_runs(paths, arms=["base", "tars", "tars", "tars"])
    base, tars = comparison.arms
    accuracies = [verdicts(seed, speech=0.72)["speech"].mean() for seed in (1, 2, 3)]
    assert tars.by_run["speech"] == pytest.approx(accuracies)
    assert tars.values["speech"] == pytest.approx(np.mean(accuracies))
    assert tars.spread["speech"] == pytest.approx(np.std(accuracies, ddof=1))
    assert base.spread["speech"] is None
    found = find(comparison, "tars", "speech")
    assert found.test == "questions and runs"
    assert found.estimate == found.over_runs
    assert found.over_questions.value == pytest.approx(found.over_runs.value)
    assert found.only_arm is None
    assert found.p < 0.05


def test_holm_is_over_arms_for_each_quantity(runs):
    comparison = compare_runs([runs["base"], runs["tars1"], runs["other"], runs["tars2"]])
    for quantity in ("speech", "text", "gap"):
        of_quantity = [each for each in comparison.differences if each.quantity == quantity]
        assert [each.arm for each in of_quantity] == ["tars1", "other", "tars2"]
        assert [each.p_holm for each in of_quantity] == holm([each.p for each in of_quantity])
    assert any(each.p_holm > each.p for each in comparison.differences)


def test_several_samples_are_not_for_mcnemar(tmp_path):
    rng = np.random.default_rng(0)
    paths = [make_run(tmp_path / name, {"speech": rng.random((50, 4)) < 0.5}) for name in ("a", "b")]
    (found,) = compare_runs(paths).differences
    assert (found.test, found.only_arm, found.only_first) == ("paired bootstrap", None, None)
    first, second = (read_outcomes(path).share["speech"][None] for path in paths)
    assert found.over_questions == difference(first, second, samples=4).over_questions


def test_one_question_and_several_runs(tmp_path):
    """Nothing can be said about runs from one question, and McNemar's test is for one run each."""
    paths = [make_run(tmp_path / str(run), {"speech": [run > 0]}) for run in range(3)]
    (found,) = compare_runs(paths, arms=["a", "b", "b"]).differences
    assert (found.test, found.over_runs) == ("paired bootstrap", None)


def test_a_modality_that_not_every_run_has_is_left_out_and_said(runs, tmp_path):
    alone = make_run(tmp_path / "alone", {"speech": verdicts(4)["speech"]})
    comparison = compare_runs([runs["base"], alone])
    assert [each.quantity for each in comparison.differences] == ["speech"]
    assert comparison.left_out == ("text",)
    assert "not every run has it: text" in printed(comparison)


def test_text_alone(tmp_path):
    paths = [make_run(tmp_path / str(seed), {"text": verdicts(seed)["text"]}) for seed in (1, 2)]
    assert [each.quantity for each in compare_runs(paths).differences] == ["text"]


def test_refusals(runs, tmp_path):
    base, other = runs["base"], runs["other"]
    with pytest.raises(InputError, match="two or more arms to compare, got base"):
        compare_runs([base])
    with pytest.raises(InputError, match="two or more arms to compare, got x"):
        compare_runs([base, other], arms=["x", "x"])
    with pytest.raises(InputError, match="two or more arms to compare, got none"):
        compare_runs([])
    with pytest.raises(InputError, match="each run once"):
        compare_runs([base, base / ".." / "base"], arms=["x", "y"])
    with pytest.raises(InputError, match="an arm for each of 2 runs, got 1"):
        compare_runs([base, other], arms=["x"])
    spoken, written = (make_run(tmp_path / name, {name: verdicts(1)[name]}) for name in ("speech", "text"))
    with pytest.raises(InputError, match="share a modality"):
        compare_runs([spoken, written])
    changed = make_run(tmp_path / "changed", verdicts(1), extractor="voicebench")
    with pytest.raises(InputError, match="answer extractor differ"):
        compare_runs([base, changed])
    fewer = make_run(tmp_path / "fewer", {"speech": [1], "text": [1]})
    with pytest.raises(InputError, match=r"only .*base has 199 questions"):
        compare_runs([base, fewer])


def test_json(runs):
    comparison = compare_runs([runs["base"], runs["tars1"], runs["tars2"]], arms=["base", "tars", "tars"])
    content = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert (content["format"], content["kind"], content["first"]) == (1, "comparison", "base")
    assert content["arms"][1]["settings"][0]["model"] == "tars1"
    assert content["differences"][0]["over_runs"]["value"] == pytest.approx(comparison.differences[0].estimate.value)


def test_names_are_shown_as_they_are(tmp_path):
    """Square brackets are markup to rich."""
    paths = [make_run(tmp_path / name, verdicts(1)) for name in ("a", "b", "c")]
    text = printed(compare_runs(paths, arms=["[bold]a", "b[/]", "[red]"]))
    for name in ("against [bold]a", "b[/]", "[red]"):
        assert name in text


def test_table(runs):
    text = printed(compare_runs([runs["base"], runs["tars1"], runs["other"]]))
    for words in (
        "200 questions",
        "speech accuracy, against base",
        "exact McNemar",
        "gap (text - speech)",
        "over 2 arms",
        "One run an arm",
    ):
        assert words in text
    several = printed(compare_runs([runs["base"], runs["tars1"], runs["tars2"]], arms=["base", "tars", "tars"]))
    assert "questions and runs" in several
    assert "±" in several


def test_no_interval_exceeds_what_can_be(tmp_path):
    """Two runs that differ a lot leave everything open, but not more than that."""
    made = {"a": [1, 0, 1, 0], "b": [1, 1, 1, 1], "c": [0, 0, 0, 0]}
    paths = [make_run(tmp_path / name, {"speech": each, "text": [1, 1, 0, 1]}) for name, each in made.items()]
    comparison = compare_runs(paths, arms=["a", "bc", "bc"], resampling=QUICK)
    for quantity, limit in (("speech", 1.0), ("gap", 2.0)):
        interval = find(comparison, "bc", quantity).over_runs
        assert (interval.low, interval.high) == (-limit, limit)


def test_figures_stay_whole_in_a_narrow_terminal(runs):
    comparison = compare_runs([runs["base"], runs["tars1"], runs["other"]])
    text = printed(comparison, width=80)
    assert "…" not in text
    for each in comparison.differences:
        assert f"[{each.estimate.low:+.3f}, {each.estimate.high:+.3f}]" in text


def outcomes(directory, share):
    """A run without its files, for simulation."""
    info = RunInfo(directory, "huggingface", "obqa", "", "", "tags", "", "")
    questions = {f"q{index}": Asked("B", 0, None) for index in range(len(share["speech"]))}
    return Outcomes(directory, info, questions, share, dict.fromkeys(share, 1.0), dict.fromkeys(share, Totals()))


def test_false_positives_and_power_of_the_whole():
    """Arms that are alike, and one that is nine points better on speech; corrected for two arms."""
    rng = np.random.default_rng(11)
    simulations, null, found = 250, 0, 0
    for _ in range(simulations):
        hardness = rng.normal(1.0, 2.0, 455)

        def answers(shift, hardness=hardness):
            right = rng.random((2, 455)) < 1 / (1 + np.exp(-(hardness + np.array([[shift], [1.0]]))))
            return {"speech": right[0].astype(float), "text": right[1].astype(float)}

        runs = [outcomes(name, answers(shift)) for name, shift in (("base", 0.0), ("same", 0.0), ("better", 0.7))]
        comparison = compare_outcomes(runs, ["base", "same", "better"], QUICK)
        null += find(comparison, "same", "speech").p_holm <= 0.05
        found += find(comparison, "better", "speech").p_holm <= 0.05
    assert null / simulations <= 0.05
    assert found / simulations > 0.8


def printed(comparison, width=200):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(comparison_table(comparison))
    return capture.get()
