"""Runs by base and arm, and arms against standard RL.

An arm is compared with standard RL seed by seed, since a seed gives both the same questions in the same order: Student's t over the
differences, Holm's correction over the declared arms of a base. Beside it stands the library's own test
(`tars_rewards.evaluation.statistics.difference`), which holds for other questions too, but takes all test questions for
independent, though many are about the same names and numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from arms import ARMS, BASES
from experiment_results import read_outcomes
from scipy import stats
from spread import ENOUGH, Spread

from tars_rewards.evaluation.statistics import Difference, difference, holm

STANDARD, TARS, UNTRAINED = "grpo", "tars", "none"
SET = "test"
CHOOSING = 100  # this seed and those above it are of runs that chose settings on the dev set

Run = Mapping[str, Any]
Arms = Mapping[str, Sequence[Run]]
"""The runs of a base, by arm."""


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


def compare(arms: Arms, modality: str, step: int | None = None) -> list[Comparison]:
    """Every other arm of a base against standard RL."""
    if STANDARD not in arms:
        return []
    standard = arms[STANDARD]
    others = [arm for arm in arms if arm not in (STANDARD, UNTRAINED)]
    paired = {arm: by_seed(standard, arms[arm], modality, step) for arm in others}
    p_values = {arm: t_test(differences) for arm, differences in paired.items()}
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


def by_seed(first: Sequence[Run], second: Sequence[Run], modality: str, step: int | None = None) -> list[float]:
    """Accuracy of the second arm less that of the first, of each seed that both have."""
    one, other = (
        {run["seed"]: measured(run, step)[f"{modality}_accuracy"] for run in runs} for runs in (first, second)
    )
    return [other[seed] - one[seed] for seed in sorted(one.keys() & other.keys())]


def t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's t over differences by seed; None with fewer than ENOUGH."""
    return float(stats.ttest_1samp(differences, 0).pvalue) if len(differences) >= ENOUGH else None
