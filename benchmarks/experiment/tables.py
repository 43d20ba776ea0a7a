"""The tables of README.md and details.md, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from arms import ARMS
from comparisons import SET, STANDARD, TARS, UNTRAINED, Arms, Comparison, Run, by_seed, compare, measured, t_test
from spread import Spread, short, shown_p

GOALS_ON = "natural"  # the base of the declared outcomes
HALF = 0.5
CONTROLS = ("symmetric", "frozen_teacher", "reasoning_format")  # TARS less these: is it the asymmetry, the alignment?


def labelled(arm: str) -> str:
    """An arm's name in the tables."""
    return f"{arm} (after the fact)" if ARMS[arm].after_the_fact else arm


def arm_table(arms: Arms) -> list[str]:
    """Markdown: what each arm came to at its end."""
    lines = [
        "| arm | seeds | spoken | written | gap | own-text ratio | MRR | spoken that reason | behavior deviation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, runs in arms.items():
        ends = [measured(run) for run in runs]

        def over_seeds(name: str, digits: int = 3, ends: Sequence[Mapping[str, Any]] = ends) -> str:
            return Spread.of([end[name] for end in ends]).show(digits)

        cells = [
            labelled(arm), str(len(runs)), over_seeds("speech_accuracy"), over_seeds("text_accuracy"), over_seeds("gap"),
            over_seeds("own_text_ratio"), over_seeds("mrr", 1), over_seeds("speech_reasons"),
            over_seeds("behavior_deviation"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def comparison_table(arms: Arms) -> list[str]:
    """Markdown: each arm less standard RL, in points."""
    spoken, written = compare(arms, "speech"), compare(arms, "text")
    if not spoken:
        return []
    lines = [
        "| less standard RL | seeds | spoken, points | p | corrected | other questions too | written, points | corrected |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for speech, text in zip(spoken, written, strict=True):
        cells = [
            labelled(speech.arm), str(speech.paired.seeds), speech.paired.points(), shown_p(speech.p_paired),
            shown_p(speech.p_holm), shown_p(speech.over_questions.p_over_runs), text.paired.points(), shown_p(text.p_holm),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def training_table(arms: Arms) -> list[str]:
    """Markdown: rewards of spoken answers, means over all steps and seeds; "within groups": standard deviation in a group."""
    columns = [
        ("representation", "representation", 3), ("within groups", "spread/representation", 3), ("behavior", "behavior", 3),
        ("within groups", "spread/behavior", 3), ("base reward within groups", "spread/base", 3), ("all wrong", "all_wrong", 3),
        ("no reference", "without_reference", 3), ("tokens", "tokens/speech", 1), ("advantages' cosine", "advantage_cosine", 3),
    ]  # fmt: skip
    lines = [f"| in training | {' | '.join(title for title, *_ in columns)} |", f"|---|{'---|' * len(columns)}"]
    for arm, runs in arms.items():
        cells = [_in_training(runs, key, digits) for _, key, digits in columns]
        if any(cells):
            lines.append(f"| {labelled(arm)} | {' | '.join(cells)} |")
    return lines[2:] and lines


def _in_training(runs: Sequence[Run], key: str, digits: int) -> str:
    logs = [[value for value in run["log"].get(key, ()) if value is not None] for run in runs]
    known = [statistics.fmean(log) for log in logs if log]
    return short(f"{statistics.fmean(known):.{digits}f}") if known else ""


def layers_table(arms: Arms) -> list[str]:
    """Markdown: cosine of the layers' states between spoken and written answer at the end, and of other questions' answers.

    An arm has a dash where a run of it had no two answers to compare.
    """
    ends = {arm: [measured(run) for run in runs] for arm, runs in arms.items()}
    count = max(len(end["layer_cosine"] or ()) for of_arm in ends.values() for end in of_arm)
    numbers = [str(number) for number in range(1, count + 1)]
    lines = [f"| layer cosine | {' | '.join([*numbers, 'other questions'])} |", f"|---|{'---|' * (count + 1)}"]
    for arm, of_arm in ends.items():
        cells = ["–"] * (count + 1)
        if all(end["layer_cosine"] is not None for end in of_arm):
            layers = zip(*(end["layer_cosine"] for end in of_arm), strict=True)
            others = [statistics.fmean(end["layer_cosine_mismatched"]) for end in of_arm]
            cells = [Spread.of(values).show() for values in (*layers, others)]
        lines.append(f"| {labelled(arm)} | {' | '.join(cells)} |")
    return lines


def other_sets_table(arms: Arms) -> list[str]:
    """Markdown: spoken accuracy on the other test sets."""
    names = [name for name in _sets(arms) if name != SET]
    lines = [f"| spoken | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for arm, runs in arms.items():
        cells = [Spread.of([measured(run, name=name)["speech_accuracy"] for run in runs]).show() for name in names]
        lines.append(f"| {labelled(arm)} | {' | '.join(cells)} |")
    return lines


def _sets(arms: Arms) -> list[str]:
    """Sets that every run has measured at its end, as the first names them."""
    runs = [run for each in arms.values() for run in each]
    ends = [next(c["sets"] for c in run["checkpoints"] if c["step"] == run["steps"]) for run in runs]
    return [name for name in ends[0] if all(name in end for end in ends)]


def verdicts(arms: Arms) -> list[str]:
    """Markdown: what was wanted of TARS on the natural base, each with what was found; nothing on others."""
    if not {UNTRAINED, STANDARD, TARS} <= arms.keys() or arms[TARS][0]["base"] != GOALS_ON:
        return []
    ends = {arm: [measured(run) for run in arms[arm]] for arm in (UNTRAINED, STANDARD, TARS)}

    def average(arm: str, name: str) -> float:
        return statistics.fmean(end[name] for end in ends[arm])

    closed = 1 - average(TARS, "gap") / average(UNTRAINED, "gap")
    ratio = average(TARS, "own_text_ratio")
    steps = arms[TARS][0]["steps"]
    end, half = _against_standard(arms, steps), _against_standard(arms, steps // 2)
    gain, p = 100 * end.paired.mean, end.p_paired
    kept = 100 * (average(TARS, "text_accuracy") - average(UNTRAINED, "text_accuracy"))
    lines = [
        "| TARS | wanted | found | |",
        "|---|---|---|---|",
        _verdict("closes so much of the gap", "≥ 80 %", f"{100 * closed:.0f} %", closed >= 0.8),
        _verdict("own-text ratio", "≥ .95", short(f"{ratio:.3f}"), ratio >= 0.95),
        _verdict(
            "spoken, against standard RL", "≥ 3 points, p < .01", f"{gain:+.1f} points, p {shown_p(p)}",
            gain >= 3 and p is not None and p < 0.01,
        ),
        f"| the same after {steps // 2} steps | | {100 * half.paired.mean:+.1f} points, p {shown_p(half.p_paired)} | |",
        _verdict("written, against no training", "no loss", f"{kept:+.1f} points", kept >= 0),
    ]  # fmt: skip
    seconds = [_step_seconds(arms[arm]) for arm in (TARS, STANDARD)]
    if seconds[0] and seconds[1]:
        slower = seconds[0] / seconds[1]
        lines.append(_verdict("time of a step, against standard RL", "≤ 1.02", f"{slower:.3f}", slower <= 1.02))
    return lines


def controls_table(arms: Arms) -> list[str]:
    """Markdown: TARS less the controls, in spoken accuracy."""
    if TARS not in arms:
        return []
    found = {control: by_seed(arms[control], arms[TARS], "speech") for control in CONTROLS if control in arms}
    lines = ["| TARS less | seeds | spoken, points | p, not corrected |", "|---|---|---|---|"]
    for control, differences in found.items():
        if differences:
            row = control, str(len(differences)), Spread.of(differences).points(), shown_p(t_test(differences))
            lines.append(f"| {' | '.join(row)} |")
    return lines[2:] and lines


def onset_table(arms: Arms) -> list[str]:
    """Markdown: when each run began to reason, where the base does not: the first of ten steps in which half of the answers do."""
    if UNTRAINED not in arms or measured(arms[UNTRAINED][0])["speech_reasons"] >= HALF:
        return []
    trained = {arm: {run["seed"]: run for run in runs} for arm, runs in arms.items() if arm != UNTRAINED}
    seeds = sorted(set().union(*trained.values()))
    lines = [f"| reasons from step | {' | '.join(f'seed {seed}' for seed in seeds)} |", f"|---|{'---|' * len(seeds)}"]
    for arm, runs in trained.items():
        cells = [_onset(runs[seed]["log"]["reasons/speech"]) if seed in runs else "–" for seed in seeds]
        lines.append(f"| {labelled(arm)} | {' | '.join(cells)} |")
    return lines


def _onset(reasons: Sequence[float], window: int = 10) -> str:
    means = (statistics.fmean(reasons[start : start + window]) for start in range(len(reasons) - window + 1))
    return next((str(start + 1) for start, mean in enumerate(means) if mean >= HALF), "never")


def seconds_table(arms: Arms) -> list[str]:
    """Markdown: seconds of a step, and which seeds ran on which machine."""
    timed = [run for runs in arms.values() for run in runs if run["seconds"].get("step_median")]
    machines = sorted({run["machine"] for run in timed})
    lines = [f"| s a step | {' | '.join(machines)} |", f"|---|{'---|' * len(machines)}"]
    for arm, runs in arms.items():
        cells = []
        for machine in machines:
            there = [run for run in runs if run["machine"] == machine]
            seconds = _step_seconds(there)
            seeds = ", ".join(str(run["seed"]) for run in there)
            cells.append("" if seconds is None else f"{seconds:.2f} (seed{'s' * (len(there) > 1)} {seeds})")
        if any(cells):
            lines.append(f"| {labelled(arm)} | {' | '.join(cells)} |")
    return lines[2:] and lines


def _step_seconds(runs: Sequence[Run]) -> float | None:
    """Median over the runs of their median step; None where no run has one."""
    known = [run["seconds"]["step_median"] for run in runs if run["seconds"].get("step_median")]
    return statistics.median(known) if known else None


def _against_standard(arms: Arms, step: int) -> Comparison:
    return next(each for each in compare(arms, "speech", step) if each.arm == TARS)


def _verdict(what: str, wanted: str, found: str, met: bool) -> str:
    return f"| {what} | {wanted} | {found} | {'yes' if met else '**no**'} |"
