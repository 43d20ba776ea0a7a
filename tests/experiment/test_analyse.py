"""The experiment's analysis, on runs whose outcomes are known."""

import analyse
import numpy as np
import pytest
from arms import ARMS
from comparisons import CHOOSING, compare, grouped, measured, outcomes
from curves import charts
from experiment_results import load, write_outcomes
from tables import (
    arm_table,
    comparison_table,
    controls_table,
    layers_table,
    onset_table,
    other_sets_table,
    seconds_table,
    training_table,
    verdicts,
)

QUESTIONS = 400


def run(arm, seed, *, speech, text=0.9, steps=200, base="natural", seconds=4.0):
    """A run whose share of right answers is about what is asked for; every seed and question differ."""
    draws = np.random.default_rng([seed, list(ARMS).index(arm)])
    right = {"speech": draws.random(QUESTIONS) < speech, "text": draws.random(QUESTIONS) < text}
    accuracy = {name: float(each.mean()) for name, each in right.items()}
    measures = {
        "questions": QUESTIONS,
        "speech_accuracy": accuracy["speech"],
        "text_accuracy": accuracy["text"],
        "gap": accuracy["text"] - accuracy["speech"],
        "own_text_ratio": accuracy["speech"] / accuracy["text"],
        "mrr": 100 * accuracy["speech"] / 0.9,
        "speech_reasons": 0.4,
        "behavior_deviation": 0.05,
        "layer_cosine": [0.8, 0.6],
        "layer_cosine_mismatched": [0.5, 0.3],
    }
    test = {**measures, "outcomes": {name: write_outcomes(each) for name, each in right.items()}}
    return {
        "base": base,
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "machine": "2 x one" if seed else "2 x another",
        "seconds": {"step_median": seconds if steps else None},
        "settings": [f"arm={arm}"],
        "log": {
            "all_wrong": [0.5] * steps,
            "reasons/speech": [0.1] * 30 + [0.9] * 40,
            "spread/representation": [None] * steps,
        },
        "checkpoints": [
            {"step": 0, "sets": {"dev": measures}},
            *([{"step": steps // 2, "sets": {"dev": measures, "test": test}}] if steps else []),
            {"step": steps, "sets": {"dev": measures, "test": test, "noise_0": measures}},
        ],
    }


@pytest.fixture
def runs():
    made = [run("none", 0, speech=0.5, steps=0)]
    for seed in range(5):
        made += [run("grpo", seed, speech=0.6), run("tars", seed, speech=0.75, seconds=4.04)]
        made.append(run("behavior", seed, speech=0.6))
    return made


def test_outcomes_are_the_bits_of_the_questions(runs):
    for each in runs:
        right = outcomes([each], "speech")
        assert right.shape == (1, QUESTIONS)
        assert right.mean() == pytest.approx(measured(each)["speech_accuracy"])


def test_runs_that_chose_settings_are_left_out(runs):
    chose = {**runs[1], "seed": CHOOSING, "settings": ["lr=1"]}
    assert grouped([*runs, chose]) == grouped(runs)


def test_runs_of_different_settings_are_not_mixed(runs):
    with pytest.raises(ValueError, match="natural/grpo: expected runs of one length and one setting"):
        grouped([*runs, {**runs[1], "seed": 9, "steps": 100}])


def test_an_arm_that_is_better_is_told_from_one_that_is_not(runs):
    found = {each.arm: each for each in compare(grouped(runs)["natural"], "speech")}
    assert found.keys() == {"tars", "behavior"}
    tars = found["tars"]
    assert tars.paired.mean == pytest.approx(tars.over_questions.over_runs.value)
    assert tars.paired.mean == pytest.approx(0.15, abs=0.04)
    assert tars.p_paired < tars.p_holm < 0.01
    assert tars.over_questions.p_over_runs < 0.01
    assert found["behavior"].p_holm > 0.05


def test_only_seeds_that_both_arms_have_are_paired(runs):
    fewer = [each for each in runs if (each["arm"], each["seed"]) != ("tars", 4)]
    [tars] = [each for each in compare(grouped(fewer)["natural"], "speech") if each.arm == "tars"]
    assert tars.paired.seeds == 4


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_have_a_mean_and_no_test(runs, seeds):
    few = [each for each in runs if each["arm"] != "tars" or each["seed"] < seeds]
    arms = grouped(few)["natural"]
    [tars] = [each for each in compare(arms, "speech") if each.arm == "tars"]
    assert tars.paired.seeds == seeds
    assert (tars.paired.half, tars.p_paired, tars.p_holm) == (None, None, None)
    [row] = [line for line in arm_table(arms) if line.startswith("| tars ")]
    assert "±" not in row


def test_what_was_tried_after_the_fact_is_named_so_and_leaves_the_correction_as_it_was(runs):
    before = {each.arm: each.p_holm for each in compare(grouped(runs)["natural"], "speech")}
    more = [*runs, *(run("tars_16", seed, speech=0.75) for seed in range(5))]
    arms = grouped(more)["natural"]
    after = {each.arm: each for each in compare(arms, "speech")}
    assert {name: after[name].p_holm for name in before} == before
    assert after["tars_16"].p_paired < 0.01
    assert after["tars_16"].p_holm is None
    for table in (arm_table(arms), comparison_table(arms), other_sets_table(arms)):
        assert [line.startswith("| tars_16 (after the fact) |") for line in table].count(True) == 1


def test_tars_is_compared_with_the_controls_that_there_are(runs):
    assert controls_table(grouped(runs)["natural"]) == []
    more = [*runs, *(run("symmetric", seed, speech=0.5) for seed in range(4))]
    [*_, row] = controls_table(grouped(more)["natural"])
    arm, seeds, points, p = (cell.strip() for cell in row.strip("|").split("|"))
    ends = {kind: [each["checkpoints"][-1]["sets"]["test"]["speech_accuracy"] for each in more if each["arm"] == kind]
            for kind in ("tars", "symmetric")}  # fmt: skip
    assert (arm, seeds) == ("symmetric", "4")
    mean = 100 * (sum(ends["tars"][:4]) - sum(ends["symmetric"])) / 4
    assert points.startswith(f"{mean:+.1f} (")
    assert float(p.removeprefix("<")) < 0.05


def test_rewards_in_training_are_means_of_the_steps_that_have_them(runs):
    log = {"behavior": [None, 0.4, 0.6], "spread/base": [0.2, 0.3, 0.4], "tokens/speech": [10, 20, 31]}
    known = [{**each, "log": log} if each["arm"] == "tars" and each["seed"] else {**each, "log": {}} for each in runs]
    _, _, row = training_table(grouped(known)["natural"])
    assert row.replace(" ", "") == "|tars|||.500||.300|||20.3||"


def test_a_run_reasons_from_the_first_ten_steps_in_which_half_of_the_answers_do(runs):
    mute = {"reasons/speech": [0.1] * 30 + [0.9] * 3 + [0.1] * 30}
    shown = [{**each, "log": mute} if each["arm"] == "grpo" else each for each in runs]
    fewer = [each for each in shown if (each["arm"], each["seed"]) != ("behavior", 1)]
    assert onset_table(grouped(fewer)["natural"])[2:] == [
        "| grpo | never | never | never | never | never |",
        "| behavior | 26 | – | 26 | 26 | 26 |",
        "| tars | 26 | 26 | 26 | 26 | 26 |",
    ]


def test_a_base_that_reasons_has_no_first_step(runs):
    for point in runs[0]["checkpoints"]:
        point["sets"] = {name: {**values, "speech_reasons": 0.6} for name, values in point["sets"].items()}
    assert onset_table(grouped(runs)["natural"]) == []


def test_layers_are_shown_beside_answers_to_other_questions(runs):
    lines = layers_table(grouped(runs)["natural"])
    assert lines[0] == "| layer cosine | 1 | 2 | other questions |"
    assert "| none | .800 | .600 | .400 |" in lines
    assert len(lines) == 2 + len({each["arm"] for each in runs})


def test_an_arm_with_a_run_without_layers_has_a_dash(runs):
    blank = {"layer_cosine": None, "layer_cosine_mismatched": None}
    for point in runs[1]["checkpoints"]:
        point["sets"] = {name: {**values, **blank} for name, values in point["sets"].items()}
    lines = layers_table(grouped(runs)["natural"])
    assert "| grpo | – | – | – |" in lines
    assert "| none | .800 | .600 | .400 |" in lines


def test_verdicts_say_what_is_met_and_what_is_not(runs):
    lines = verdicts(grouped(runs)["natural"])
    met = [line.rsplit("|", 2)[1].strip() for line in lines[2:]]
    assert met[:4] == ["**no**", "**no**", "yes", ""]
    assert met[5] == "yes"
    assert "1.010" in lines[7]


def test_only_the_base_of_the_declared_outcomes_has_verdicts(runs):
    elsewhere = [{**each, "base": "constructed"} for each in runs]
    assert verdicts(grouped(elsewhere)["constructed"]) == []


def test_a_verdict_changes_with_the_runs(runs):
    slow = [{**each, "seconds": {"step_median": 4.2}} if each["arm"] == "tars" else each for each in runs]
    assert verdicts(grouped(slow)["natural"])[7].endswith("**no** |")


def test_without_times_there_is_no_verdict_on_them(runs):
    beside = [{**each, "seconds": {"step_median": None}} if each["arm"] == "tars" else each for each in runs]
    lines = verdicts(grouped(beside)["natural"])
    assert len(lines) == 7
    assert not any("time of a step" in line for line in lines)


def test_a_step_takes_what_it_took_on_each_machine(runs):
    lines = seconds_table(grouped([each for each in runs if each["arm"] != "behavior" or each["seed"]])["natural"])
    assert lines == [
        "| s a step | 2 x another | 2 x one |",
        "|---|---|---|",
        "| grpo | 4.00 (seed 0) | 4.00 (seeds 1, 2, 3, 4) |",
        "| behavior |  | 4.00 (seeds 1, 2, 3, 4) |",
        "| tars | 4.04 (seed 0) | 4.04 (seeds 1, 2, 3, 4) |",
    ]


def test_an_untrained_base_takes_no_step(runs):
    assert seconds_table(grouped(runs[:1])["natural"]) == []


def test_what_was_not_measured_is_an_error(runs):
    with pytest.raises(ValueError, match="expected test to be measured after step 50"):
        measured(runs[1], 50)


def test_the_report_replaces_what_stood_between_the_marks(runs):
    text = f"before\n{analyse.BEGIN}\nold\n{analyse.END}\nafter\n"
    new = analyse.replace_results(text, analyse.report(runs, analyse.README))
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new
    assert "| tars | 5 |" in new
    with pytest.raises(ValueError, match="expected a page with"):
        analyse.replace_results("nothing", "x")


def test_each_page_has_tables_of_its_own(runs):
    outcomes, details = (analyse.report(runs, page) for page in analyse.PAGES)
    assert "| less standard RL |" in outcomes
    assert "| layer cosine |" in details
    assert not {line for line in outcomes.splitlines() if line.startswith("| ")} & set(details.splitlines())


def test_charts_leave_out_what_no_run_has(runs):
    names = [chart.name for chart in charts("natural", grouped(runs)["natural"])]
    assert names == ["natural_accuracy", "natural_dev", "natural_all_wrong", "natural_reasons_speech"]


@pytest.mark.parametrize("page", analyse.PAGES, ids=lambda page: page.name)
def test_the_pages_say_what_the_committed_results_say(page):
    text = page.read_text()
    assert analyse.replace_results(text, analyse.report(load(), page)) == text
