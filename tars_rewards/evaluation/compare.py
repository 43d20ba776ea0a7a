"""What several runs say about each other: paired differences on the same questions, tested and corrected.

An arm is a model, a method or a setting, with one run or with several (training seeds). Every arm is compared with the
first, in each modality and in the gap. Which test decides is named beside each p:

==========================  ========================================================================================
`exact McNemar`             one run each, one verdict a question; in a modality
`paired bootstrap`          one run each; in the gap, or where questions have several samples
`questions and runs`        an arm has several runs: their variance counts too (`statistics.difference`)
==========================  ========================================================================================

The first two speak of exactly the models that were run. Holm's correction is over the arms, for each quantity by itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.errors import InputError
from tars_rewards.evaluation.outcomes import WRITTEN, Outcomes, read_outcomes, require_same_questions
from tars_rewards.evaluation.records import FORMAT
from tars_rewards.evaluation.statistics import Estimate, Resampling, difference, holm, mcnemar
from tars_rewards.evaluation.summary import cells, shown

if TYPE_CHECKING:
    from jaxtyping import Float
    from rich.console import RenderableType

GAP = "gap"
_SETTINGS = ("model", "benchmark", "engine", "sampling", "condition", "tars_rewards")


@dataclass(frozen=True)
class Arm:
    """One arm: the mean over its runs, and how far they lie apart."""

    name: str
    runs: tuple[str, ...]  #: directories
    settings: tuple[Mapping[str, Any], ...]  #: of each run: model, engine, sampling, condition
    values: Mapping[str, float]  #: by quantity: accuracy of each modality, and "gap"
    by_run: Mapping[str, tuple[float, ...]]  #: the same of each run
    spread: Mapping[str, float | None]  #: standard deviation (n - 1) over the runs; None with one run


@dataclass(frozen=True)
class PairedDifference:
    """An arm minus the first arm, in one quantity. Shares: 0.02 is two points."""

    arm: str
    quantity: str  #: a modality, for its accuracy; or "gap"
    over_questions: Estimate  #: interval for other questions like these, and exactly these models
    over_runs: Estimate | None  #: interval for other questions and other runs like these; None without several runs
    test: str  #: what `p` is of
    p: float  #: two-sided
    p_holm: float  #: corrected for the number of arms
    only_first: int | None  #: questions that only the first arm got right; None where McNemar's test does not apply
    only_arm: int | None  #: questions that only this arm got right

    @property
    def estimate(self) -> Estimate:
        """The difference, with the interval that belongs to `p`."""
        return self.over_questions if self.over_runs is None else self.over_runs


@dataclass(frozen=True)
class Comparison:
    """All arms against the first."""

    questions: int
    spoken: str | None  #: the modality beside the written one
    arms: tuple[Arm, ...]
    differences: tuple[PairedDifference, ...]  #: by quantity, then arm
    left_out: tuple[str, ...]  #: modalities that some of the runs lack
    resampling: Resampling

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {"format": FORMAT, "kind": "comparison", "first": self.arms[0].name, **asdict(self)}


def compare_runs(
    paths: Sequence[str | os.PathLike[str]],
    *,
    arms: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> Comparison:
    """Compare run directories.

    Args:
        paths: The run directories. The first one's arm is what the others are compared with.
        arms: The arm that each run belongs to; runs of one arm (seeds) share its name. None: every run is an arm of its
            own, named like its directory.
        resampling: Of the intervals.

    Raises:
        InputError: A run cannot be read; runs differ in questions, right answers, prompts or extractor (it is said in
            which); there are fewer than two arms; a run is given twice; or the runs share no modality.
    """
    directories = [os.fspath(path) for path in paths]
    names = _names(directories) if arms is None else list(arms)
    if len(names) != len(directories):
        raise InputError(f"expected an arm for each of {len(directories)} runs, got {len(names)}: {', '.join(names)}")
    if len(set(names)) < 2:
        raise InputError(
            f"expected runs of two or more arms to compare, got {', '.join(dict.fromkeys(names)) or 'none'}"
        )
    if len({os.path.realpath(directory) for directory in directories}) < len(directories):
        raise InputError(f"expected each run once, got {', '.join(directories)}")
    return compare_outcomes([read_outcomes(directory) for directory in directories], names, resampling)


def compare_outcomes(runs: Sequence[Outcomes], arms: Sequence[str], resampling: Resampling | None = None) -> Comparison:
    """The same of runs that have been read: one arm's name a run."""
    resampling = resampling or Resampling()
    require_same_questions(runs)
    spoken_by_run = {run.spoken for run in runs}
    shared = set.intersection(*(set(run.share) for run in runs))
    if not shared:
        raise InputError(
            "expected runs that share a modality, got "
            + "; ".join(f"{run.directory}: {', '.join(sorted(run.share))}" for run in runs)
        )
    spoken = spoken_by_run.pop() if len(spoken_by_run) == 1 else None
    modalities = [name for name in (spoken, WRITTEN) if name in shared and name is not None]
    quantities = [*modalities, *([GAP] if len(modalities) == 2 else [])]
    names = list(dict.fromkeys(arms))
    grouped = {name: [run for run, arm in zip(runs, arms, strict=True) if arm == name] for name in names}
    values = {name: {quantity: _values(grouped[name], quantity, spoken) for quantity in quantities} for name in names}
    samples = min(run.samples[modality] for run in runs for modality in modalities)
    differences = []
    for quantity in quantities:
        found = [
            _difference(name, quantity, values[names[0]][quantity], values[name][quantity], samples, resampling)
            for name in names[1:]
        ]
        corrected = holm([each.p for each in found])
        differences += [replace(each, p_holm=p) for each, p in zip(found, corrected, strict=True)]
    return Comparison(
        questions=len(runs[0].questions),
        spoken=spoken,
        arms=tuple(_arm(name, grouped[name], values[name]) for name in names),
        differences=tuple(differences),
        left_out=tuple(sorted(set.union(*(set(run.share) for run in runs)) - set(modalities))),
        resampling=resampling,
    )


def comparison_table(comparison: Comparison) -> RenderableType:
    """The comparison for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Column, Table

    level = f"{100 * comparison.resampling.level:g} % interval"
    first = comparison.arms[0]
    quantities = list(first.values)
    title = f"{comparison.questions} questions"
    standing = Table(
        "arm",
        "runs",
        *[_label(quantity, comparison.spoken) for quantity in quantities],
        title=title,
        title_justify="left",
    )
    for arm in comparison.arms:
        spread = [f" ±{arm.spread[each]:.3f}" if arm.spread[each] is not None else "" for each in quantities]
        values = [shown(arm.values[each]) + more for each, more in zip(quantities, spread, strict=True)]
        standing.add_row(escape(arm.name), str(len(arm.runs)), *values)
    tables: list[RenderableType] = []
    for quantity in quantities:
        # Narrow: figures stay whole in a terminal of 80 columns.
        figures = [Column(name, no_wrap=True) for name in ("difference", level)]
        against = Table(
            Column("arm", overflow="fold"), *figures, "only arm : first right", Column("p", no_wrap=True), "p (Holm)",
            Column("test", min_width=9),
            title=f"{_label(quantity, comparison.spoken)}, against {escape(first.name)}", title_justify="left",
            show_edge=False, pad_edge=False,
        )  # fmt: skip
        for each in comparison.differences:
            if each.quantity == quantity:
                counts = "-" if each.only_arm is None else f"{each.only_arm} : {each.only_first}"
                against.add_row(
                    escape(each.arm), *cells(each.estimate, signed=True), counts, _p(each.p), _p(each.p_holm), each.test
                )
        tables += [against, ""]
    others = len(comparison.arms) - 1
    notes = [f"Holm's correction is over {others} arm{'s' * (others > 1)}, for each quantity by itself."]
    if any(len(arm.runs) > 1 for arm in comparison.arms):
        notes.append("± is the standard deviation over an arm's runs; an arm of one run is taken as it is.")
    else:
        notes.append("One run an arm: this is about these models, not about training them again with another seed.")
    if comparison.left_out:
        notes.append(f"Not compared, since not every run has it: {', '.join(comparison.left_out)}.")
    return Group(standing, *tables, *notes)


def _difference(
    arm: str,
    quantity: str,
    first: Float[np.ndarray, "first_runs questions"],
    second: Float[np.ndarray, "second_runs questions"],
    samples: float,
    resampling: Resampling,
) -> PairedDifference:
    limit = 2.0 if quantity == GAP else 1.0
    found = difference(first, second, limit=limit, samples=samples, resampling=resampling)
    test, p, only_first, only_arm = "paired bootstrap", found.p_over_questions, None, None
    if found.p_over_runs is not None:
        test, p = "questions and runs", found.p_over_runs
    elif (
        quantity != GAP
        and len(first) == len(second) == 1
        and np.isin(np.concatenate([first, second]), (0.0, 1.0)).all()
    ):
        only_first, only_arm, p = mcnemar(first[0] > 0.5, second[0] > 0.5)
        test = "exact McNemar"
    return PairedDifference(
        arm=arm,
        quantity=quantity,
        over_questions=found.over_questions,
        over_runs=found.over_runs,
        test=test,
        p=p,
        p_holm=p,
        only_first=only_first,
        only_arm=only_arm,
    )


def _values(runs: Sequence[Outcomes], quantity: str, spoken: str | None) -> Float[np.ndarray, "runs questions"]:
    if quantity == GAP and spoken is not None:
        return np.stack([run.share[WRITTEN] - run.share[spoken] for run in runs])
    return np.stack([run.share[quantity] for run in runs])


def _arm(name: str, runs: Sequence[Outcomes], values: Mapping[str, Float[np.ndarray, "runs questions"]]) -> Arm:
    by_run = {quantity: each.mean(axis=1) for quantity, each in values.items()}
    return Arm(
        name=name,
        runs=tuple(run.directory for run in runs),
        settings=tuple({setting: getattr(run.info, setting) for setting in _SETTINGS} for run in runs),
        values={quantity: float(each.mean()) for quantity, each in by_run.items()},
        by_run={quantity: tuple(map(float, each)) for quantity, each in by_run.items()},
        spread={quantity: float(each.std(ddof=1)) if len(each) > 1 else None for quantity, each in by_run.items()},
    )


def _names(directories: Sequence[str]) -> list[str]:
    """Names of the directories, or their whole paths where two have the same name."""
    short = [Path(directory).resolve().name for directory in directories]
    return short if len(set(short)) == len(short) else list(directories)


def _label(quantity: str, spoken: str | None) -> str:
    return f"gap ({WRITTEN} - {spoken})" if quantity == GAP else f"{quantity} accuracy"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
