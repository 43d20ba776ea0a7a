"""Questions to be evaluated on: the benchmarks of VoiceBench by name, or any file of questions.

=========  =========  ========================================================================================
name       questions  VoiceBench's config (hlt-lab/voicebench, arXiv 2410.17196), and columns of its Parquet files
=========  =========  ========================================================================================
`mmsu`     3,074      `mmsu`, 12 splits: audio, prompt, reference, question_id, cot_content, category, src
`obqa`     455        `openbookqa`, split test: audio, prompt, reference
=========  =========  ========================================================================================

In both the clip says all of the question, its options A to D and the request for a letter; `prompt` is the same in writing,
and `reference` the right letter. CUHK's MMSU (ddwang2000/MMSU) is another benchmark of the same name.

Ids of questions are those of the paper's evaluation: ``ori_mmlu-jurisprudence_886`` from `src` and `question_id`, and
``obqa_0`` from the place in the file, for `openbookqa` has no ids.
"""

from __future__ import annotations

import bisect
import difflib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tars_rewards.errors import ConfigError, InputError
from tars_rewards.scoring.source import FileRows, RowSource
from tars_rewards.scoring.tables import JSONL, PARQUET, Row, read_rows

if TYPE_CHECKING:
    import pyarrow as pa

REPOSITORY = "hlt-lab/voicebench"
LETTERS = "ABCD"

REASONING_PROMPT = (
    "The user asks the Assistant a question. The Assistant first reasons about it step by step, and then gives the user the "
    "answer. The reasoning stands within <think> </think> tags and the answer within <answer> </answer> tags, like this: "
    "<think>[REASONING]</think><answer>The answer is [CHOICE].</answer>"
)
"""System prompt of an evaluation that sets none. The paper's evaluation asks for the same in a system turn, with the same
block, in other words (prompt `systhink` of its repository); it adds nothing to the question in the user's turn."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that is made of Parquet files of one schema."""

    name: str
    config: str  #: directory of the files in the repository
    questions: int  #: in all of it
    columns: Mapping[str, str]  #: kind of each column: "audio", "text" or "integer"
    question: Callable[[Mapping[str, Any], int], dict[str, Any]]
    """From a row and its number in the whole benchmark, from 0, to a question's fields."""


def _mmsu(row: Mapping[str, Any], _: int) -> dict[str, Any]:
    if row["src"] is None or row["question_id"] is None:
        raise InputError("", ["columns 'src' and 'question_id': expected both, they are the question's id"])
    return {"id": f"{row['src']}_{row['question_id']}", "category": row["category"], **_shared(row)}


def _openbookqa(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"id": f"obqa_{number}", **_shared(row)}


def _shared(row: Mapping[str, Any]) -> dict[str, Any]:
    letter = row["reference"]
    if letter not in tuple(LETTERS):
        raise InputError("", [f"column 'reference': expected a letter from A to D, got {letter!r}"])
    return {"prompt": row["prompt"], "audio": row["audio"], "answer": letter}


_QUESTION = {"audio": "audio", "prompt": "text", "reference": "text"}
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "mmsu",
            "mmsu",
            3074,
            {**_QUESTION, "question_id": "integer", "cot_content": "text", "category": "text", "src": "text"},
            _mmsu,
        ),
        Benchmark("obqa", "openbookqa", 455, _QUESTION, _openbookqa),
    )
}


def open_benchmark(name: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> RowSource:
    """Rows of a benchmark as questions, read when they are needed.

    Args:
        name: A benchmark's name, or a JSONL or Parquet file of questions (`scoring.question.Question`).
        data: Where a benchmark's Parquet files are: a directory (theirs, or one above), or one of the files; None: on the
            Hugging Face hub, from where they are downloaded once. Not for a file of questions.

    Raises:
        ConfigError: There is no such benchmark, or the hub is out of reach.
        InputError: A file is of another schema (each differing column is named), or there is none.
    """
    given = os.fspath(name)
    if given in BENCHMARKS:
        return BenchmarkRows(BENCHMARKS[given], _download(BENCHMARKS[given]) if data is None else Path(data))
    if Path(given).suffix.lower() not in (*JSONL, *PARQUET):
        close = difflib.get_close_matches(given.lower(), ["openbookqa", *BENCHMARKS], n=1, cutoff=0.5)
        hint = f"; did you mean {close[0].replace('openbookqa', 'obqa')!r}?" if close else "."
        raise ConfigError(
            f"unknown benchmark {given!r}{hint} Known are {' and '.join(BENCHMARKS)}, or give a file of questions "
            f"({', '.join((*JSONL, *PARQUET))})"
        )
    if data is not None:
        raise ConfigError(
            f"data is {os.fspath(data)!r}, but {given} is itself the file of questions; give data with one of "
            f"{', '.join(BENCHMARKS)}, or leave it out"
        )
    return FileRows(given)


class BenchmarkRows:
    """The rows of a benchmark's Parquet files, in the order of the files' names, as fields of questions.

    Args:
        benchmark: Which.
        data: Their directory, one above it, or one file.

    Raises:
        InputError: A file is of another schema, or there is none.
    """

    def __init__(self, benchmark: Benchmark, data: Path) -> None:
        self.name = f"{benchmark.name} in {data}"
        self._benchmark = benchmark
        self._files = _parquet_files(benchmark, data)
        self.root = self._files[0].parent
        self._ends = list(itertools.accumulate(_checked_rows(file, benchmark) for file in self._files))

    def rows(self) -> Iterator[Row]:
        """All rows, from the first."""
        every = itertools.chain.from_iterable(read_rows(file, parquet=True) for file in self._files)
        for number, row in enumerate(every, start=1):
            try:
                yield Row(number, self._benchmark.question(row.value, number - 1))
            except InputError as error:
                yield Row(number, row.value, "; ".join(error.problems))

    def where(self, number: int) -> str:
        """How messages name a row: by its file, and its place in there."""
        file = bisect.bisect_left(self._ends, number)
        return f"{self._files[file].name}, row {number - (self._ends[file - 1] if file else 0)}"


def _parquet_files(benchmark: Benchmark, data: Path) -> Sequence[Path]:
    if data.is_file():
        return [data]
    below = data / benchmark.config
    files = sorted((below if below.is_dir() else data).rglob("*.parquet"))
    if not files:
        raise InputError(
            f"{data}: expected the Parquet files of VoiceBench's {benchmark.config}, found none; give their directory, or "
            f"one of them (download: hf download --repo-type dataset {REPOSITORY} --include '{benchmark.config}/*')"
        )
    return files


def _checked_rows(path: Path, benchmark: Benchmark) -> int:
    """Number of rows of a file that has the benchmark's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
    problems = []
    for name, kind in benchmark.columns.items():
        if name not in schema.names:
            problems.append(f"column {name!r}: expected {_EXPECTED[kind]}, got none")
        elif not _is(kind, schema.field(name).type):
            problems.append(f"column {name!r}: expected {_EXPECTED[kind]}, got {schema.field(name).type}")
    if problems:
        raise InputError(
            f"{path} has not the columns of VoiceBench's {benchmark.config} (it has {', '.join(schema.names)}); is it "
            "another benchmark of the same name? Make a file of questions of it, or take VoiceBench's:",
            problems,
        )
    return rows


_EXPECTED = {"audio": "struct<bytes: binary, path: string>", "text": "string", "integer": "int64"}


def _is(kind: str, given: pa.DataType) -> bool:
    import pyarrow.types as types

    if kind == "integer":
        return bool(types.is_integer(given))
    if kind == "text":
        return bool(types.is_string(given) or types.is_large_string(given))
    if not types.is_struct(given):
        return False
    fields = {field.name: field.type for field in given}
    content, path = fields.get("bytes"), fields.get("path")
    return (
        content is not None
        and path is not None
        and bool(types.is_binary(content) or types.is_large_binary(content))
        and _is("text", path)
    )


def _download(benchmark: Benchmark) -> Path:
    from huggingface_hub import snapshot_download

    try:
        # The hub's library keeps what it has, and says so by an OSError where it has neither a copy nor a connection.
        return Path(snapshot_download(REPOSITORY, repo_type="dataset", allow_patterns=f"{benchmark.config}/*.parquet"))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{benchmark.name} cannot be had from the Hugging Face hub ({REPOSITORY}: {reason}); check the network, or "
            "download its Parquet files and name their directory by data"
        ) from error
