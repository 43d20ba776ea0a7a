"""A run directory: what a model answered, and under which settings.

================  ==================================================================================================
`run.json`        `RunInfo`: settings, fingerprints and versions
`results.jsonl`   `EvaluationRow`, one a line: each question, modality and sample
`summary.json`    what `summary` makes of them
================  ==================================================================================================

Numbers that do not exist are null, never NaN.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from tars_rewards.errors import InputError
from tars_rewards.scoring.journal import fingerprint
from tars_rewards.scoring.tables import read_rows, write_rows

FORMAT = 1
KIND = "evaluation"
RUN, RESULTS, SUMMARY = "run.json", "results.jsonl", "summary.json"

_MOST_PROBLEMS = 100  # after which a file is not read any further
_AGAIN = "give a directory that `tars-rewards evaluate --out` wrote"


@dataclass(frozen=True)
class EvaluationRow:
    """One completion of one question, judged. Its identity is (id, modality, sample_id)."""

    id: str  #: the question
    modality: str  #: in which it was asked: "speech" or "text"
    prompt: str  #: the question as it is written; the same in both modalities
    answer: str  #: the right answer
    completion: str
    extraction: str | None  #: the answer found in the completion; None: unparsed
    correct: bool  #: False where unparsed
    sample_id: int = 0  #: which sample of this question and modality, from 0
    category: str | None = None  #: of the question
    truncated: bool = False  #: generation stopped at the length limit
    tokens: int | None = None  #: length of the completion; None: the engine does not tell
    seconds: float | None = None  #: generation time, in a batch this row's share of it; None: unknown
    audio: str | None = None  #: path of the clip

    @classmethod
    def from_row(cls, row: Any) -> EvaluationRow:
        """Read a row as JSON has it; fields of other names are left aside.

        Raises:
            InputError: With one problem for each field that is wrong.
        """
        if not isinstance(row, Mapping):
            raise InputError("", [f"expected an object with the fields {', '.join(_ROW)}, got {_shown(row)}"])
        problems = [
            f"field {name!r}: expected {expected}, got {_shown(row[name]) if name in row else 'no such field'}"
            for name, (expected, fits) in _ROW.items()
            if name not in row or not fits(row[name])
        ]
        if not problems and row["correct"] and row["extraction"] is None:
            problems.append("field 'correct': expected false where 'extraction' is null, got true")
        if problems:
            raise InputError("a result cannot be read:", problems)
        return cls(**{name: row[name] for name in _ROW})


@dataclass(frozen=True)
class RunInfo:
    """What a run was: what its results depend on, and what two runs must share to be compared."""

    model: str
    engine: str  #: "huggingface", or the URL of an endpoint
    benchmark: str  #: name, or file
    questions: str  #: `questions_fingerprint`
    prompts: str  #: `prompts_fingerprint`
    extractor: str  #: who found the answers
    created: str  #: ISO time
    tars_rewards: str  #: version
    sampling: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)  #: such as {"snr_db": None, "speed": 1.0}
    versions: Mapping[str, str] = field(default_factory=dict)  #: of what else took part

    def to_json(self) -> dict[str, Any]:
        """Content of `run.json`."""
        return {"format": FORMAT, "kind": KIND, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> RunInfo:
        """Read the content of `run.json`; entries of other names are left aside.

        Raises:
            InputError: With one problem for each entry that is wrong.
        """
        if not isinstance(content, Mapping):
            raise InputError("", [f"expected an object, got {_shown(content)}; {_AGAIN}"])
        if content.get("kind") != KIND:
            raise InputError("", [f"field 'kind': expected {KIND!r}, got {_shown(content.get('kind'))}; {_AGAIN}"])
        if content.get("format") != FORMAT:
            raise InputError(
                "",
                [
                    f"field 'format': expected {FORMAT}, got {_shown(content.get('format'))}: the run is of tars-rewards "
                    f"{content.get('tars_rewards')}; evaluate again with this version, or read it with that one"
                ],
            )
        wanted = {each.name: Mapping if each.name in _MAPPINGS else str for each in fields(cls)}
        problems = [
            f"field {name!r}: expected {'an object' if kind is Mapping else 'a text'}, got {_shown(content.get(name))}"
            for name, kind in wanted.items()
            if not isinstance(content.get(name), kind)
        ]
        if problems:
            raise InputError("", problems)
        return cls(**{name: content[name] for name in wanted})


def write_info(directory: str | os.PathLike[str], info: RunInfo) -> None:
    """Write `run.json`; the directory is made."""
    write_json(Path(directory) / RUN, info.to_json())


def read_info(directory: str | os.PathLike[str]) -> RunInfo:
    """Read `run.json`.

    Raises:
        InputError: It is missing or corrupt, of another kind of run, or of another version of the format.
    """
    path = Path(directory) / RUN
    content = read_json(path)
    try:
        return RunInfo.from_json(content)
    except InputError as error:
        raise InputError(f"{path} cannot be used:", error.problems) from error


def write_results(directory: str | os.PathLike[str], rows: Iterable[EvaluationRow]) -> int:
    """Write `results.jsonl`, which appears complete or not at all; returns the number of rows."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    return write_rows(Path(directory) / RESULTS, map(asdict, rows), parquet=False)


def read_results(directory: str | os.PathLike[str]) -> Iterator[EvaluationRow]:
    """Rows of `results.jsonl` as a stream; of each question only an answer, a hash and its samples' ids are kept.

    Raises:
        InputError: The file is missing; or, after its last good row, with every bad one: not JSON, a field missing or
            wrong, a question without an answer, a row that occurs twice, rows that disagree about their question.
    """
    path = Path(directory) / RESULTS
    if not path.is_file():
        raise InputError(f"{path}: expected the results of a run, got no such file; {_AGAIN}")
    problems: list[str] = []
    known: dict[str, tuple[str, str | None, int]] = {}
    seen: dict[tuple[str, str, int], int] = {}
    for number, value, problem in read_rows(path, parquet=False):
        where = f"line {number}"
        if len(problems) >= _MOST_PROBLEMS:
            problems.append(f"{where}: not read any further")
            break
        if problem is not None:
            problems.append(f"{where}: {problem}")
            continue
        try:
            row = EvaluationRow.from_row(value)
        except InputError as error:
            problems += [f"{where}: {each}" for each in error.problems]
            continue
        identity = (row.id, row.modality, row.sample_id)
        about = (row.answer, row.category, fingerprint(row.prompt))
        if identity in seen:
            problems.append(
                f"{where}: expected each (id, modality, sample_id) once, got {identity} again after line {seen[identity]}"
            )
        elif known.setdefault(row.id, about) != about:
            differing = [name for name, a, b in zip(_ABOUT, known[row.id], about, strict=True) if a != b]
            problems += [
                f"{where}: field {name!r}: expected that of the other rows of {row.id!r}" for name in differing
            ]
        else:
            seen[identity] = number
            yield row
    if problems:
        raise InputError(f"{path} cannot be used; run `tars-rewards evaluate` again for it:", problems)


def questions_fingerprint(questions: Iterable[tuple[str, str]]) -> str:
    """Fingerprint of (id, answer) of every question, whatever their order.

    Example:
        >>> questions_fingerprint([("q1", "A"), ("q2", "B")]) == questions_fingerprint([("q2", "B"), ("q1", "A")])
        True
        >>> questions_fingerprint([("q1", "A")]) == questions_fingerprint([("q1", "B")])
        False
    """
    total = sum(fingerprint(list(question)) for question in questions)
    return f"{total % 2**64:016x}"


def prompts_fingerprint(system: str | None, instruction: str | None, own: str | None = None) -> str:
    """Fingerprint of what surrounds the questions: system prompt, instruction, and what questions bring of their `own`."""
    return f"{fingerprint({'system': system, 'instruction': instruction, 'own': own}):016x}"


def make_directory(directory: str | os.PathLike[str]) -> None:
    """Make a directory that results go to, if need be.

    Raises:
        InputError: It cannot be made, or be written to.
    """
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{os.fspath(directory)}: expected a directory to write to, and it cannot be made ({error.strerror}); choose "
            "another one"
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that appears complete or not at all; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(aside, path)


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        InputError: It is missing, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {_AGAIN}") from error
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, got something else ({error}); {_AGAIN}") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_count_or_none(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_time_or_none(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and math.isfinite(value) and cast(float, value) >= 0)


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    return shown if len(shown) <= 60 else shown[:60] + "…"


_ABOUT = ("answer", "category", "prompt")
_MAPPINGS = ("sampling", "condition", "versions")
_ROW: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("a text", _is_filled),
    "modality": ("a text", _is_filled),
    "sample_id": ("a whole number of at least 0", _is_count),
    "category": ("a text or null", _is_text_or_none),
    "prompt": ("a text", _is_text),
    "answer": ("the right answer (give it in the question file)", _is_filled),
    "completion": ("a text", _is_text),
    "extraction": ("a text, or null where unparsed", _is_text_or_none),
    "correct": ("true or false", _is_bool),
    "truncated": ("true or false", _is_bool),
    "tokens": ("a whole number of at least 0, or null", _is_count_or_none),
    "seconds": ("a number of at least 0, or null", _is_time_or_none),
    "audio": ("a text or null", _is_text_or_none),
}
