"""Rows of rewards, read back from what `score` wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError
from tars_rewards.scoring.tables import PARQUET

REQUIRED = ("id", "modality", "completion", "total")


def read_questions(source: str, *, ids: Sequence[str], first: int) -> dict[str, list[dict[str, Any]]]:
    """Rows by question, in the order of the file.

    Args:
        source: JSONL or Parquet file, or ``-`` for JSONL on standard input.
        ids: Questions to read; none: the first ones.
        first: How many of the first, at least 1.

    Raises:
        InputError: The file cannot be read, rows are not rewards (all are named), or a question is not there.
    """
    found: dict[str, list[dict[str, Any]]] = {identity: [] for identity in ids}
    for row in _rows(source, ids):
        identity = row["id"]
        if identity not in found:
            if ids:
                continue
            if len(found) == first:
                break  # rows of a question are adjacent
            found[identity] = []
        found[identity].append(row)
    absent = [identity for identity, rows in found.items() if not rows]
    if absent:
        raise InputError(f"no question {', '.join(map(repr, absent))} in {source}")
    if not found:
        raise InputError(f"no rows in {source}")
    return found


def _rows(source: str, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    if source != "-" and not Path(source).is_file():
        raise InputError(f"expected a file of rewards, found none at {source}")
    return _parquet_rows(source, ids) if Path(source).suffix.lower() in PARQUET else _jsonl_rows(source)


def _parquet_rows(source: str, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import dataset

    try:
        table = dataset.dataset(source, format="parquet")
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{source} is no Parquet file: {error}") from error
    absent = [name for name in REQUIRED if name not in table.schema.names]
    if absent:
        raise InputError(_not_rewards(source), [f"column {name!r} is missing" for name in absent])
    if not pyarrow.types.is_string(table.schema.field("id").type):
        raise InputError(_not_rewards(source), [f"column 'id': expected texts, got {table.schema.field('id').type}"])
    wanted = dataset.field("id").isin(list(ids)) if ids else None
    for batch in table.to_batches(filter=wanted, batch_size=1024):
        yield from batch.to_pylist()


def _jsonl_rows(source: str) -> Iterator[dict[str, Any]]:
    """Rows up to the first bad one; then an error that names all bad ones."""
    problems: list[str] = []
    with ExitStack() as stack:
        lines = sys.stdin.buffer if source == "-" else stack.enter_context(open(source, "rb"))
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row, problem = _parse(line)
            if problem:
                problems.append(f"line {number}: {problem}")
            elif not problems:
                yield row
    if problems:
        raise InputError(_not_rewards(source), problems)


def _parse(line: bytes) -> tuple[dict[str, Any], str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"no JSON: {error}"
    if not isinstance(row, dict):
        return {}, f"expected an object, got {type(row).__name__}"
    absent = [name for name in REQUIRED if name not in row]
    return row, f"missing: {', '.join(map(repr, absent))}" if absent else ""


def _not_rewards(source: str) -> str:
    return f"{source} is not what tars-rewards score writes:"
