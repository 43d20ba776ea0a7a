"""Training runs, as the adapters write them: metrics by step, and a sample of their rollouts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError
from tars_rewards.evaluation.records import read_json
from tars_rewards.report.records import TrainingRun
from tars_rewards.scoring.tables import read_rows

METRICS, ROLLOUTS, RUN = "metrics.jsonl", "rollouts.jsonl", "run.json"
_IN_ROLLOUT = ("step", "id", "modality", "sample_id", "completion")


def read_training(directory: Path, label: str) -> TrainingRun:
    """Read a run. Of a step that occurs again, as after a resumption, the later line counts.

    Raises:
        InputError: A line of a file is corrupt; all are named.
    """
    steps: dict[int, Mapping[str, float]] = {}
    for row in _rows(directory / METRICS):
        metrics = row.get("data", row.get("metrics"))
        if not isinstance(row.get("step"), int) or not isinstance(metrics, Mapping):
            raise InputError(
                f'{directory / METRICS}: expected lines such as {{"step": 1, "data": {{…}}}}, got one with the fields '
                f"{', '.join(map(str, row)) or 'none'}; train with the file logger of the framework, or of tars-rewards"
            )
        numbers = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        steps[row["step"]] = {**steps.get(row["step"], {}), **numbers}
    rollouts = list(_rows(directory / ROLLOUTS))
    for row in rollouts:
        if missing := [name for name in _IN_ROLLOUT if name not in row]:
            raise InputError(
                f"{directory / ROLLOUTS}: expected rollouts with the fields {', '.join(_IN_ROLLOUT)}, got one without "
                f"{', '.join(missing)}; the file is of another version of tars-rewards, or cut short"
            )
    info = read_json(directory / RUN) if (directory / RUN).is_file() else {}
    return TrainingRun(label, sorted(steps.items()), rollouts, info, directory)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        return
    problems = []
    for number, value, problem in read_rows(path, parquet=False):
        if problem is None and not isinstance(value, Mapping):
            problem = f"expected an object, got {type(value).__name__}"
        if problem is not None:
            problems.append(f"line {number}: {problem}")
        else:
            yield value
    if problems:
        raise InputError(f"{path} cannot be used; delete these lines, or the file to go without it:", problems)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
