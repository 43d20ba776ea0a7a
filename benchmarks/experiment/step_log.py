"""What a training in verl logged, as one list a metric: the common format of ``results.json``.

The figures of a step are computed from all of its rollouts, which the run log has; what only verl knows comes from verl's
own log. A figure that does not exist in a step is None.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from rewards import reasons

Row = dict[str, Any]
Log = dict[str, list[float | None]]
TERMS = ("representation", "behavior")
FORMAT_WEIGHT = 0.5
SIGNIFICANT = 3
# From verl's metrics.
VERL = {
    "entropy": "actor/entropy",
    "gradient_norm": "actor/grad_norm",
    "clipped": "actor/pg_clipfrac",
    "seconds": "timing_s/step",
    "seconds_generation": "timing_s/gen",
    "seconds_log_prob": "timing_s/old_log_prob",
    "seconds_advantage": "timing_s/adv",
    "seconds_update": "timing_s/update_actor",
    "seconds_push": "timing_s/update_weights",
}


def collect(run_log: Path, verl_log: Path) -> Log:
    """The log of a training.

    Args:
        run_log: The directory that `reward.custom_kwargs.run_log` named.
        verl_log: File of verl's file logger.

    Returns:
        One value a step of every metric; a metric that no step has is left out.

    Raises:
        ValueError: The two logs are not of the same steps, from 1 on.
    """
    rollouts: dict[int, list[Row]] = defaultdict(list)
    for row in _lines(run_log / "rollouts.jsonl"):
        rollouts[row["step"]].append(row)
    metrics = {line["step"]: line["data"] for line in _lines(verl_log)}
    steps = sorted(rollouts)
    if steps != list(range(1, len(steps) + 1)) or sorted(metrics) != steps:
        raise ValueError(f"expected the same steps in {run_log} and {verl_log}, got {steps} and {sorted(metrics)}")
    figures = [
        of_step(rollouts[step]) | {name: metrics[step].get(source) for name, source in VERL.items()} for step in steps
    ]
    log = {name: [rounded(figure[name]) for figure in figures] for name in figures[0]}
    return {name: values for name, values in log.items() if any(value is not None for value in values)}


def of_step(rows: Sequence[Row]) -> dict[str, float | None]:
    """Figures of one step.

    - `<measure>/<modality>`: mean of accuracy, format, total reward, of answers that reason, of tokens, of truncated ones.
    - `representation`, `behavior`: mean over the speech completions that have the term.
    - `spread/<term>`: standard deviation over the speech completions of a question, its mean over the questions.
    - `all_wrong`, `all_right`: share of the questions all of whose speech completions are; `without_reference`: share that
      has no right text completion.
    - `advantage_cosine`: of the advantages of all speech completions of the step with those of standard RL.
    """
    by_modality = {modality: [row for row in rows if row["modality"] == modality] for modality in ("speech", "text")}
    figures: dict[str, float | None] = {}
    measures: dict[str, Callable[[Row], float]] = {
        "accuracy": lambda row: row["accuracy"],
        "format": lambda row: row["format"],
        "total": lambda row: row["total"],
        "reasons": lambda row: reasons(row["completion"]),
        "tokens": lambda row: row["tokens"],
        "truncated": lambda row: row["truncated"],
    }
    for name, measure in measures.items():
        for modality, chosen in by_modality.items():
            figures[f"{name}/{modality}"] = mean(measure(row) for row in chosen)
    speech = list(_groups(by_modality["speech"]).values())
    written = _groups(row for row in by_modality["text"] if row["accuracy"])
    for term in TERMS:
        figures[term] = mean(row[term] for row in by_modality["speech"] if row[term] is not None)
        values = ([row[term] for row in group if row[term] is not None] for group in speech)
        figures[f"spread/{term}"] = mean(statistics.pstdev(group) for group in values if len(group) > 1)
    figures["spread/base"] = mean(statistics.pstdev(map(standard, group)) for group in speech)
    figures["all_wrong"] = mean(not any(row["accuracy"] for row in group) for group in speech)
    figures["all_right"] = mean(all(row["accuracy"] for row in group) for group in speech)
    figures["without_reference"] = mean(group[0]["id"] not in written for group in speech)
    figures["advantage_cosine"] = cosine(
        _advantages(speech, lambda row: float(row["total"])), _advantages(speech, standard)
    )
    return figures


def standard(row: Row) -> float:
    """The base reward of a completion."""
    return float(row["accuracy"] + FORMAT_WEIGHT * row["format"])


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Cosine of two vectors; None where one of them is zero."""
    norms = sqrt(sum(value * value for value in one)) * sqrt(sum(value * value for value in other))
    return sum(left * right for left, right in zip(one, other, strict=True)) / norms if norms > 1e-12 else None


def mean(values: Iterable[float]) -> float | None:
    """Mean; None of nothing."""
    collected = list(values)
    return sum(collected) / len(collected) if collected else None


def rounded(value: float | None) -> float | None:
    """Few digits, so that results stay small; whole numbers as such."""
    if value is None:
        return None
    short = float(f"{value:.{SIGNIFICANT}g}")
    return int(short) if short == int(short) else short


def _advantages(groups: Iterable[Sequence[Row]], reward: Callable[[Row], float]) -> list[float]:
    advantages = []
    for group in groups:
        rewards = [reward(row) for row in group]
        advantages += [value - sum(rewards) / len(rewards) for value in rewards]
    return advantages


def _groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["id"]].append(row)
    return groups


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open() as stream:
        yield from map(json.loads, stream)
