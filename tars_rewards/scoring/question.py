"""A question and its completions: the schema of a row of JSONL or Parquet, and of a request over HTTP."""

from __future__ import annotations

import base64
import binascii
import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tars_rewards.errors import InputError

MEDIA = ("audio", "image")
_TEXTS = ("answer", "system", "instruction", "category")
FIELDS = ("id", "prompt", *MEDIA, *_TEXTS, "completions")
_COMPARED = 200  # fields of a row that are compared with the known ones, which takes its time
_LONGEST_FIELD = 24
_COMPLETION_FIELDS = ("text", "token_ids", "truncated", "correct")


@dataclass(frozen=True)
class Completion:
    """A completion of a question in one modality."""

    text: str  #: without the prompt and without special tokens
    token_ids: tuple[int, ...] | None = None
    """Its tokens as they were sampled, the one that ended it included; None: the text is tokenized, and ended by the
    model's end-of-turn token unless it is truncated."""
    truncated: bool = False  #: generation stopped at the length limit
    correct: bool | None = None  #: whether the answer is right; None: judged from the question's answer

    @classmethod
    def from_row(cls, row: Any) -> Completion:
        """Read a completion: its text, or a mapping of this class's fields.

        Raises:
            InputError: With one problem for each field that is wrong.
        """
        if isinstance(row, Completion):
            return row
        if isinstance(row, str) and _is_text(row):
            return cls(row)
        if not isinstance(row, Mapping):
            raise InputError("", [f"expected a text or {{'text': …}}, got {_shown(row)}"])
        problems = _unknown(row, _COMPLETION_FIELDS)
        token_ids = row.get("token_ids")
        if not _is_text(row.get("text")):
            problems.append(f"field 'text': expected the completion as a text, got {_shown(row.get('text'))}")
        if token_ids is not None and not (_is_list(token_ids) and all(_is_id(token) for token in token_ids)):
            problems.append(f"field 'token_ids': expected token ids of at least 0 or null, got {_shown(token_ids)}")
        if not isinstance(row.get("truncated") or False, bool):
            problems.append(f"field 'truncated': expected true or false, got {_shown(row['truncated'])}")
        if not isinstance(row.get("correct"), bool | None):
            problems.append(f"field 'correct': expected true, false or null, got {_shown(row['correct'])}")
        if problems:
            raise InputError("a completion cannot be read:", problems)
        tokens = None if token_ids is None else tuple(int(token) for token in token_ids)
        return cls(row["text"], tokens, bool(row.get("truncated")), row.get("correct"))

    def to_row(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        return {
            "text": self.text,
            "token_ids": None if self.token_ids is None else list(self.token_ids),
            "truncated": self.truncated,
            "correct": self.correct,
        }


@dataclass(frozen=True, eq=False)
class Question:
    """A question, written and as a clip or an image, and its completions.

    Both modalities ask the same: the written one by `prompt`, the other by `audio` or `image`. System prompt and
    instruction are the same text in both.
    """

    id: str  #: identifies the question in its file
    prompt: str = ""  #: the question as it is read
    audio: Any = field(default=None, repr=False)
    """The question as it is heard, in any form that `speech.waveform.load_waveform` takes: a path, {"path"}, {"bytes"}
    (of an audio file), {"array", "sampling_rate"}; `from_row` also takes the bytes themselves, and (array, rate)."""
    image: Any = field(
        default=None, repr=False
    )  #: for vision-language models: a path, {"path"}, {"bytes"} or PIL image
    answer: str | None = None  #: the right answer: an option's letter, or free text
    completions: Mapping[str, Sequence[Completion]] = field(default_factory=dict)  #: by modality
    system: str | None = None  #: system prompt; None: the scorer's
    instruction: str | None = None  #: follows the question in both modalities; None: the scorer's
    category: str | None = None  #: group of questions that evaluation also tells the accuracy of, such as a subject

    @classmethod
    def from_row(cls, row: Any, *, root: str | os.PathLike[str] | None = None) -> Question:
        """Read a question from a row as JSON or Parquet has it.

        Args:
            row: A mapping of this class's fields; `completions` by modality, each a list of texts or of mappings of the
                fields of `Completion`; a clip's or image's ``bytes`` may be base64. Numbers are taken for `id`, `answer` and
                `category`. Fields of other names are left aside, but not those that look like a known one misspelt.
            root: Directory that relative paths start from; None: the current one.

        Raises:
            InputError: With one problem for each field that is wrong.
        """
        if isinstance(row, Question):
            return row
        if not isinstance(row, Mapping):
            raise InputError(
                "a question cannot be read:", [f"expected an object with the fields {FIELDS}, got {_shown(row)}"]
            )
        problems = _unknown(row, FIELDS)
        identity = _as_text(row.get("id"))
        if not _is_text(identity) or not identity:
            problems.append(f"field 'id': expected a non-empty text, got {_shown(row.get('id'))}")
        texts: dict[str, Any] = {"prompt": row.get("prompt") or "", "answer": _as_text(row.get("answer"))}
        texts.update(
            {name: row.get(name) for name in ("system", "instruction")}, category=_as_text(row.get("category"))
        )
        problems += [
            f"field {name!r}: expected a text or null, got {_shown(value)}"
            for name, value in texts.items()
            if value is not None and not _is_text(value)
        ]
        media = {}
        for name in MEDIA:
            try:
                media[name] = _medium(row.get(name), Path(root or "."))
            except ValueError as error:
                problems.append(f"field {name!r}: {error}")
        completions = _completions(row.get("completions") or {}, problems)
        if problems:
            raise InputError("a question cannot be read:", problems)
        return cls(id=identity, completions=completions, **texts, **media)

    def to_row(self) -> dict[str, Any]:
        """The fields that are set, as JSON has them, a clip's bytes as base64."""
        row: dict[str, Any] = {"id": self.id, "prompt": self.prompt}
        row.update({name: _jsonable(value) for name in MEDIA if (value := getattr(self, name)) is not None})
        row.update({name: value for name in _TEXTS if (value := getattr(self, name)) is not None})
        if self.completions:
            row["completions"] = {
                modality: [completion.to_row() for completion in each] for modality, each in self.completions.items()
            }
        return row


def _completions(given: Any, problems: list[str]) -> dict[str, tuple[Completion, ...]]:
    if not isinstance(given, Mapping):
        problems.append(f"field 'completions': expected {{modality: [completion, …]}}, got {_shown(given)}")
        return {}
    found = {}
    for modality, rows in given.items():
        if rows is None:  # a column of Parquet that this row leaves empty
            continue
        if not _is_list(rows):
            problems.append(f"field 'completions.{modality}': expected a list, got {_shown(rows)}")
            continue
        read = []
        for index, row in enumerate(rows):
            try:
                read.append(Completion.from_row(row))
            except InputError as error:
                problems += [f"field 'completions.{modality}[{index}]': {problem}" for problem in error.problems]
        found[str(modality)] = tuple(read)
    return found


def _medium(value: Any, root: Path) -> Any:
    """A clip or image, with relative paths starting from `root` and bytes out of their base64."""
    if isinstance(value, str | os.PathLike):
        value = {"path": os.fspath(value)}
    elif isinstance(value, bytes):
        value = {"bytes": value}
    elif isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], int | float):
        value = {"array": value[0], "sampling_rate": value[1]}
    if not isinstance(value, Mapping):
        return value
    if value and all(each is None for each in value.values()):  # how Parquet has a struct that is not there
        return None
    content, path = value.get("bytes"), value.get("path")
    if isinstance(content, str):
        try:
            return {"path": path, "bytes": base64.b64decode(content, validate=True)}
        except binascii.Error as error:
            raise ValueError(f"expected 'bytes' in base64, got something else ({error})") from error
    if content is not None or value.get("array") is not None:
        return value
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(
            f"expected a path, 'bytes', or 'array' with 'sampling_rate', got keys {sorted(map(str, value))}"
        )
    located = root / path
    if not located.is_file():
        raise ValueError(f"expected an existing file, got {os.fspath(located)}; relative paths start from {root}")
    return {"path": os.path.abspath(located)}


def _jsonable(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return os.fspath(value) if isinstance(value, os.PathLike) else value
    row = {name: each for name, each in value.items() if each is not None}
    if isinstance(row.get("bytes"), bytes):
        row["bytes"] = base64.b64encode(row["bytes"]).decode()
    if hasattr(row.get("array"), "tolist"):
        row["array"] = row["array"].tolist()
    return row


def _unknown(row: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    strangers = [str(name) for name in row if name not in known]
    absent = [name for name in known if row.get(name) is None]  # one that is there is not the one misspelt
    nearest = {
        name: difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.8)
        for name in strangers[:_COMPARED]
        if len(name) <= _LONGEST_FIELD
    }
    return [f"field {name!r}: did you mean {close[0]!r}?" for name, close in nearest.items() if close]


def _as_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(value) if math.isfinite(value) else value  # pandas has NaN for what is missing


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and _lone_surrogate(value) is None


def _lone_surrogate(text: str) -> int | None:
    """Where a text holds half a character, which can be neither tokenized nor written."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: Any) -> str:
    shown = repr(value)
    if isinstance(value, str) and (start := _lone_surrogate(value)) is not None:
        return f"a surrogate that stands alone at character {start}"
    return f"{type(value).__name__} {shown[:60]}{'…' if len(shown) > 60 else ''}" if value is not None else "nothing"
