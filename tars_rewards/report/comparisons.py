"""Comparisons, as `tars-rewards compare` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError
from tars_rewards.evaluation.records import FORMAT
from tars_rewards.report.evaluations import estimate
from tars_rewards.report.records import Comparison, PairedDifference

KIND = "comparison"


def read_comparison(content: Mapping[str, Any], path: Path, label: str) -> Comparison:
    """Read the content of a comparison's file.

    Raises:
        InputError: It is of another version of the format.
    """
    again = "compare again: `tars-rewards compare`"
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT}, got {content.get('format')!r}; {again}")
    try:
        questions = content["questions"]
        return Comparison(
            label=label,
            questions=questions,
            first=content["first"],
            level=content["resampling"]["level"],
            arms={arm["name"]: arm for arm in content["arms"]},
            differences=[_difference(each, questions) for each in content["differences"]],
            info={name: content[name] for name in ("resampling", "left_out", "spoken")},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected a comparison of format {FORMAT}, but {type(error).__name__}: {error}; {again}"
        ) from error


def _difference(content: Mapping[str, Any], questions: int) -> PairedDifference:
    over_runs = content["over_runs"]
    return PairedDifference(
        arm=content["arm"],
        quantity=content["quantity"],
        estimate=estimate(content["over_questions"] if over_runs is None else over_runs, questions),
        test=content["test"],
        p=content["p"],
        p_holm=content["p_holm"],
        only_first=content["only_first"],
        only_arm=content["only_arm"],
    )
