"""What the runs say: ``python benchmarks/experiment/analyse.py`` rewrites the results in README.md, and the plots.

Outcomes were declared before the runs (README.md). An arm is compared with standard RL seed by seed, since a seed gives both the
same questions in the same order: Student's t over the differences, Holm's correction over the declared arms of a base. Beside it
stands the library's own test (`tars_rewards.evaluation.statistics.difference`), which holds for other questions too, but takes
all test questions for independent, though many are about the same names and numbers.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from arms import ARMS, BASES
from experiment_results import load, read_outcomes
from scipy import stats
from spread import ENOUGH, Spread, short, shown_p

from tars_rewards.evaluation.statistics import Difference, difference, holm

README = Path(__file__).parent / "README.md"
PLOTS = README.parent / "plots"
BEGIN, END = "<!-- results: written by analyse.py -->", "<!-- end of results -->"
STANDARD, TARS, UNTRAINED = "grpo", "tars", "none"
CONTROLS = ("symmetric", "frozen_teacher", "reasoning_format")  # TARS less these: is it the asymmetry, the alignment?
SET = "test"
CHOOSING = 100  # this seed and those above it are of runs that chose settings on the dev set

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """An arm less standard RL in one modality's accuracy."""

    arm: str
    paired: Spread  #: over the seeds that both have
    p_paired: float | None  #: two-sided, of Student's t over those seeds; None with fewer than ENOUGH
    p_holm: float | None  #: the same, corrected for the declared arms of the base; None for others
    over_questions: Difference  #: for other questions and seeds


def grouped(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by base and arm, seeds in order; those that chose settings are left out.

    Raises:
        ValueError: An arm has runs of different settings or lengths, which no table may mix.
    """
    found: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: run["seed"]):
        if run["seed"] < CHOOSING:
            found[run["base"]][run["arm"]].append(run)
    for base, arms in found.items():
        for arm, of_arm in arms.items():
            kinds = {(run["steps"], *run["settings"]) for run in of_arm}
            if len(kinds) > 1:
                raise ValueError(f"{base}/{arm}: expected runs of one length and one setting, got {sorted(kinds)}")
    return {base: {arm: found[base][arm] for arm in ARMS if arm in found[base]} for base in BASES if base in found}


def measured(run: Run, step: int | None = None, name: str = SET) -> Mapping[str, Any]:
    """What was measured on a set after ``step``; None: at the end.

    Raises:
        ValueError: That was not measured.
    """
    step = run["steps"] if step is None else step
    for checkpoint in run["checkpoints"]:
        if checkpoint["step"] == step and name in checkpoint["sets"]:
            values: Mapping[str, Any] = checkpoint["sets"][name]
            return values
    raise ValueError(f"{run['base']}/{run['arm']}/{run['seed']}: expected {name} to be measured after step {step}")


def outcomes(runs: Sequence[Run], modality: str, step: int | None = None) -> npt.NDArray[np.float64]:
    """Whether each test question was answered rightly: ``[runs, questions]`` of 0 and 1."""
    ends = [measured(run, step) for run in runs]
    return np.array([read_outcomes(end["outcomes"][modality], end["questions"]) for end in ends], float)


def compare(arms: Mapping[str, Sequence[Run]], modality: str, step: int | None = None) -> list[Comparison]:
    """Every other arm of a base against standard RL."""
    if STANDARD not in arms:
        return []
    standard = arms[STANDARD]
    others = [arm for arm in arms if arm not in (STANDARD, UNTRAINED)]
    paired = {arm: _paired(standard, arms[arm], modality, step) for arm in others}
    p_values = {arm: _tested(differences) for arm, differences in paired.items()}
    declared = {arm: p for arm, p in p_values.items() if p is not None and not ARMS[arm].after_the_fact}
    corrected = dict(zip(declared, holm(list(declared.values())), strict=True))
    first = outcomes(standard, modality, step)
    return [
        Comparison(
            arm,
            Spread.of(paired[arm]),
            p_values[arm],
            corrected.get(arm),
            difference(first, outcomes(arms[arm], modality, step)),
        )
        for arm in others
        if paired[arm]
    ]


def _paired(standard: Sequence[Run], arm: Sequence[Run], modality: str, step: int | None) -> list[float]:
    """Differences in accuracy over the seeds that both arms have."""
    first, second = (
        {run["seed"]: measured(run, step)[f"{modality}_accuracy"] for run in runs} for runs in (standard, arm)
    )
    return [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]


def _tested(differences: Sequence[float]) -> float | None:
    return float(stats.ttest_1samp(differences, 0).pvalue) if len(differences) >= ENOUGH else None


def labelled(arm: str) -> str:
    """An arm's name in the tables."""
    return f"{arm} (after the fact)" if ARMS[arm].after_the_fact else arm


def arm_table(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    """Markdown: what each arm came to at its end."""
    lines = [
        "| arm | seeds | spoken | written | gap | own-text ratio | MRR | spoken that reason | behavior deviation | s a step |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, runs in arms.items():
        ends = [measured(run) for run in runs]

        def over_seeds(name: str, digits: int = 3, ends: Sequence[Mapping[str, Any]] = ends) -> str:
            return Spread.of([end[name] for end in ends]).show(digits)

        seconds = _step_seconds(runs)
        cells = [
            labelled(arm), str(len(runs)), over_seeds("speech_accuracy"), over_seeds("text_accuracy"), over_seeds("gap"),
            over_seeds("own_text_ratio"), over_seeds("mrr", 1), over_seeds("speech_reasons"),
            over_seeds("behavior_deviation"),
            "" if seconds is None else f"{seconds:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def comparison_table(arms: Mapping[str, Sequence[Run]]) -> list[str]:
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


def other_sets_table(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    """Markdown: spoken accuracy on the other test sets."""
    names = [name for name in _sets(arms) if name != SET]
    lines = [f"| spoken | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for arm, runs in arms.items():
        cells = [Spread.of([measured(run, name=name)["speech_accuracy"] for run in runs]).show() for name in names]
        lines.append(f"| {labelled(arm)} | {' | '.join(cells)} |")
    return lines


def _sets(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    """Sets that every run has measured at its end, as the first names them."""
    runs = [run for each in arms.values() for run in each]
    ends = [next(c["sets"] for c in run["checkpoints"] if c["step"] == run["steps"]) for run in runs]
    return [name for name in ends[0] if all(name in end for end in ends)]


def verdicts(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    """Markdown: the moonshot's four demands on this base, each with what was found."""
    if not {UNTRAINED, STANDARD, TARS} <= arms.keys():
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


def controls_table(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    """Markdown: TARS less the controls, in spoken accuracy."""
    if TARS not in arms:
        return []
    found = {control: _paired(arms[control], arms[TARS], "speech", None) for control in CONTROLS if control in arms}
    lines = ["| TARS less | seeds | spoken, points | p, not corrected |", "|---|---|---|---|"]
    for control, differences in found.items():
        if differences:
            row = control, str(len(differences)), Spread.of(differences).points(), shown_p(_tested(differences))
            lines.append(f"| {' | '.join(row)} |")
    return lines[2:] and lines


def _step_seconds(runs: Sequence[Run]) -> float | None:
    """Median over the runs of their median step; None where no run has one."""
    known = [run["seconds"]["step_median"] for run in runs if run["seconds"].get("step_median")]
    return statistics.median(known) if known else None


def _against_standard(arms: Mapping[str, Sequence[Run]], step: int) -> Comparison:
    return next(each for each in compare(arms, "speech", step) if each.arm == TARS)


def report(runs: Iterable[Run]) -> str:
    """The README's part on results."""
    parts = []
    for base, arms in grouped(runs).items():
        parts += [f"### {base.capitalize()} base", ""]
        tables = (arm_table, comparison_table, controls_table, verdicts, other_sets_table)
        for table in (made(arms) for made in tables):
            if table:
                parts += [*table, ""]
        plots = [f"[{path.stem}](plots/{path.name})" for path in sorted(PLOTS.glob(f"{base}_*.png"))]
        parts += [f"Plots: {', '.join(plots)}", ""] if plots else []
    return "\n".join(parts).strip()


def replace_results(text: str, found: str) -> str:
    """The README with its results exchanged.

    Raises:
        ValueError: It lacks the marks between which they stand.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"expected {BEGIN} and {END} in {README}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{found}\n\n{END}", text)


def _verdict(what: str, wanted: str, found: str, met: bool) -> str:
    return f"| {what} | {wanted} | {found} | {'yes' if met else '**no**'} |"


def main() -> None:
    from curves import write_plots

    runs = load()
    for path in write_plots(grouped(runs)):
        print(path)
    README.write_text(replace_results(README.read_text(), report(runs)))
    print(report(runs))


if __name__ == "__main__":
    sys.exit(main())
