"""Evaluation runs, as `tars_rewards.evaluation` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError
from tars_rewards.evaluation.outcomes import require_all_results
from tars_rewards.evaluation.records import (
    FORMAT,
    RESULTS,
    RUN,
    SUMMARY,
    EvaluationRow,
    read_info,
    read_json,
    read_results,
)
from tars_rewards.evaluation.summary import summarize
from tars_rewards.report.records import Category, Estimate, Evaluation
from tars_rewards.scoring.sink import bad_rows_of


def read_evaluation(directory: Path, label: str) -> Evaluation:
    """Read a run; where its summary has not been written it is made.

    Raises:
        InputError: A file is missing or corrupt, or of another version of the format.
    """
    info = read_info(directory)
    rows = list(read_results(directory))
    require_all_results(directory, info, {row.id: row.answer for row in rows})
    if (directory / SUMMARY).is_file():
        content = read_json(directory / SUMMARY)
    else:
        content = json.loads(json.dumps(summarize(directory).to_json()))
    try:
        return _evaluation(
            content,
            rows,
            label,
            directory,
            info=info,
            left_out=_left_out(directory),
            recorded=read_json(directory / RUN),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{directory / SUMMARY}: expected a summary of format {FORMAT}, but {type(error).__name__}: {error}; "
            "delete it: it is then made again from the results"
        ) from error


def _evaluation(content: Any, rows: list[EvaluationRow], label: str, directory: Path, **of_run: Any) -> Evaluation:
    if content["format"] != FORMAT:
        raise InputError(
            f"{directory / SUMMARY}: expected format {FORMAT}, got {content['format']!r}; delete it: it is then made "
            "again from the results"
        )
    questions, answered = content["questions"], len({row.id for row in rows})
    if questions != answered:
        raise InputError(
            f"{directory / SUMMARY}: it is of {questions} questions, but {directory / RESULTS} is of {answered}; "
            "delete it: it is then made again from the results"
        )
    modalities = content["modalities"]
    return Evaluation(
        label=label,
        questions=questions,
        level=content["resampling"]["level"],
        accuracy={name: estimate(each["accuracy"], questions) for name, each in modalities.items()},
        gap=_maybe(content["gap"], questions),
        own_ratio=_maybe(content["own_text_ratio"], questions),
        recovery_rate=_maybe(content["recovery_rate"], questions),
        denominator=content["denominator"],
        denominator_name=content["denominator_name"],
        categories=[_category(name, each) for name, each in content["categories"].items()],
        conduct={name: {k: v for k, v in each.items() if k != "accuracy"} for name, each in modalities.items()},
        resampling=content["resampling"],
        rows=rows,
        root=directory,
        **of_run,
    )


def _left_out(directory: Path) -> int:
    bad = bad_rows_of(directory / RESULTS)
    return bad.read_bytes().count(b"\n") if bad.is_file() else 0


def _category(name: str, content: Mapping[str, Any]) -> Category:
    n = content["questions"]
    accuracy = {modality: estimate(each, n) for modality, each in content["accuracy"].items()}
    return Category(name, n, accuracy, _maybe(content["gap"], n))


def estimate(content: Mapping[str, Any], n: int | None) -> Estimate:
    """An estimate as JSON has it."""
    return Estimate(content["value"], content["low"], content["high"], n)


def _maybe(content: Mapping[str, Any] | None, n: int) -> Estimate | None:
    return None if content is None else estimate(content, n)
