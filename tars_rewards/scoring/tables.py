"""JSONL and Parquet, row by row: nothing but the rows at hand is in memory."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tars_rewards.errors import InputError
from tars_rewards.scoring.question import FIELDS as QUESTION_FIELDS
from tars_rewards.speech.family import SAMPLING_RATE

if TYPE_CHECKING:
    import pyarrow as pa

JSONL = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")

ASIDE = ".tmp"
"""What the name of a file ends in until it is complete."""

_GROUP = 1000  # rows of a Parquet row group, each maybe with a clip
_AT_A_TIME = 64  # rows of a Parquet file that are in memory, each maybe with a clip
_INTEGERS = ("sample_id", "reference", "tokens")
_BOOLEANS = ("truncated", "correct")
_TEXTS = ("id", "modality", "completion", "answer", "prompt", "system", "instruction", "category")


class Row(NamedTuple):
    """A row of a file, or why it could not be read."""

    number: int  #: counts from 1; in JSONL lines, blank ones too
    value: Any
    problem: str | None = None


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Whether a file is Parquet, by its name.

    Raises:
        InputError: It is neither Parquet nor JSONL.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*JSONL, *PARQUET):
        raise InputError(f"{os.fspath(path)}: expected a file name that ends in {', '.join((*JSONL, *PARQUET))}")
    return suffix in PARQUET


def read_rows(path: str | os.PathLike[str], *, parquet: bool) -> Iterator[Row]:
    """Rows of a file: of JSONL one JSON value a line, blank lines left out.

    Raises:
        InputError: The file cannot be opened, or is not Parquet though it should be.
    """
    if parquet:
        yield from _read_parquet(path)
        return
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(number, line)
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error


def write_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], *, parquet: bool) -> int:
    """Write a file that appears under its name complete or not at all.

    Args:
        path: The file.
        rows: Rows of `ScoredQuestion.rows` or `Question.to_row`.
        parquet: Parquet instead of JSONL.

    Returns:
        The number of rows.
    """
    aside = Path(f"{os.fspath(path)}{ASIDE}")
    try:
        count = _write_parquet(aside, rows) if parquet else _write_jsonl(aside, rows)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def dump(row: Any, *, ascii_only: bool = False) -> str:
    """A row as one line of JSON; bytes become base64."""
    return json.dumps(row, ensure_ascii=ascii_only, allow_nan=False, default=_encode)


def _parse(number: int, line: bytes) -> Row:
    try:
        return Row(number, json.loads(line))
    except (ValueError, RecursionError) as error:  # no JSON or no UTF-8, or a number or a depth over Python's limits
        shown = line[:60].decode("utf-8", "replace").rstrip()
        return Row(number, line.decode("utf-8", "replace"), f"expected one JSON object a line, got {shown!r} ({error})")


def _read_parquet(path: str | os.PathLike[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            numbers = itertools.count(1)
            for batch in file.iter_batches(batch_size=_AT_A_TIME):
                for value in batch.to_pylist(maps_as_pydicts="strict"):
                    yield Row(next(numbers), value)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{os.fspath(path)} cannot be read as Parquet: {error}") from error
    except KeyError as error:  # of maps_as_pydicts
        raise InputError(
            f"{os.fspath(path)} has a map with a key that is there twice: {error}; give each once"
        ) from error


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(dump(row) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    unwritten = iter(rows)
    first = list(itertools.islice(unwritten, 1))
    schema = _schema(first[0] if first else {})
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        todo = itertools.chain(first, unwritten)
        while group := list(itertools.islice(todo, _GROUP)):
            columns = [_for_arrow(row) for row in group]
            writer.write_table(pa.Table.from_pylist(columns, schema=schema))
            count += len(group)
    return count


def _schema(row: Mapping[str, Any]) -> pa.Schema:
    import pyarrow as pa

    completion = pa.struct(
        [("text", pa.string()), ("token_ids", pa.list_(pa.int64())), ("truncated", pa.bool_()), ("correct", pa.bool_())]
    )
    medium = pa.struct(
        [
            ("path", pa.string()),
            ("bytes", pa.binary()),
            ("array", pa.list_(pa.float32())),
            ("sampling_rate", pa.int64()),
        ]
    )

    def kind(name: str, value: Any) -> pa.DataType:
        if name == "completions":
            return pa.struct([(modality, pa.list_(completion)) for modality in value or ()])
        if name in ("audio", "image"):
            return medium
        for names, each in ((_INTEGERS, pa.int64()), (_BOOLEANS, pa.bool_()), (_TEXTS, pa.string())):
            if name in names:
                return each
        return pa.float64()

    if "prompt" in row:  # a question: what it leaves out, another one may have
        row = {name: row.get(name) for name in QUESTION_FIELDS}
    return pa.schema([(name, kind(name, value)) for name, value in row.items()])


def _for_arrow(row: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what JSON needs: bytes out of their base64, a path of its own into a mapping."""
    columns = dict(row)
    for name in ("audio", "image"):
        value = columns.get(name)
        if isinstance(value, str):
            columns[name] = {"path": value}
        elif isinstance(value, list):  # samples by themselves
            columns[name] = {"array": value, "sampling_rate": SAMPLING_RATE}
        elif isinstance(value, Mapping) and isinstance(value.get("bytes"), str):
            columns[name] = {**value, "bytes": base64.b64decode(value["bytes"])}
    return columns


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
