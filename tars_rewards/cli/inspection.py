"""`tars-rewards inspect`: a question's completions side by side."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tars_rewards.cli.reward_rows import read_questions
from tars_rewards.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tars_rewards.cli.commands import Inspect

_SHOWN_LENGTH = 240  # characters of a completion without --full
_NOT_TERMS = frozenset(
    ("id", "modality", "sample_id", "completion", "answer", "truncated", "total", "reference", "log_prob", "tokens")
)
_NONE = "–"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey


def inspect(command: Inspect) -> int:
    """Print the questions asked for.

    Raises:
        InputError: The file is not one of rewards, or lacks a question.
        ConfigError: A flag is out of range.
    """
    if command.n < 1:
        raise ConfigError(f"-n is {command.n}; expected at least 1 question")
    console = Console(highlight=False)
    for identity, rows in read_questions(command.source, ids=command.id, first=command.n).items():
        console.print(_title(identity, rows), soft_wrap=False)
        console.print(_side_by_side(identity, rows, command))
    return 0


def _title(identity: str, rows: Sequence[Mapping[str, Any]]) -> Text:
    answer = rows[0].get("answer")
    return Text.assemble((str(identity), "bold"), f"   answer: {_NONE if answer is None else answer}")


def _side_by_side(identity: str, rows: Sequence[Mapping[str, Any]], command: Inspect) -> RenderableType:
    target, anchor = command.target_modality, command.anchor_modality
    columns: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        columns[row["modality"]].append(row)
    strangers = sorted(set(columns) - {target, anchor})
    if strangers:
        raise InputError(
            f"question {identity!r} has completions in {', '.join(map(repr, sorted(columns)))}, expected {target!r} and "
            f"{anchor!r}; name its modalities by --target-modality and --anchor-modality"
        )
    compared: dict[Any, list[Any]] = defaultdict(list)  # by chosen anchor completion, the target completions
    for row in columns[target]:
        if row.get("reference") is not None:
            compared[row["reference"]].append(row.get("sample_id"))
    table = Table(box=SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
    for modality in (target, anchor):
        table.add_column(f"{modality} ({len(columns[modality])})", ratio=1, overflow="fold")
    left = [_cell(row, _reference(row, anchor), command.full) for row in columns[target]]
    right = [
        _cell(row, _chosen(compared.get(row.get("sample_id"), []), target), command.full) for row in columns[anchor]
    ]
    for pair in zip_longest(left, right, fillvalue=Text()):
        table.add_row(*pair)
        table.add_row()
    return table


def _cell(row: Mapping[str, Any], note: Text, full: bool) -> RenderableType:
    head = Text.assemble(f"#{_number(row.get('sample_id'))}  total ", (_number(row["total"]), "bold"))
    if row.get("truncated"):
        head.append("  truncated", "yellow")
    shown = {name: value for name, value in row.items() if name not in _NOT_TERMS and isinstance(value, int | float)}
    terms = [f"{name} {_number(value)}" for name, value in shown.items()]
    if row.get("log_prob") is not None:
        terms.append(f"log-prob {_number(row['log_prob'])} in {_number(row.get('tokens'))} tokens")
    text = _CONTROL.sub("\ufffd", str(row["completion"]))
    if not full and len(text) > _SHOWN_LENGTH:
        text = f"{text[:_SHOWN_LENGTH]}… (+{len(text) - _SHOWN_LENGTH} characters)"
    return Group(head, Text("\n".join(terms), "dim"), note, Text(text))


def _reference(row: Mapping[str, Any], anchor: str) -> Text:
    reference = row.get("reference")
    return Text("no reference", "yellow") if reference is None else Text(f"→ {anchor} #{reference}", "green")


def _chosen(by: Sequence[Any], target: str) -> Text:
    if not by:
        return Text("not chosen", "dim")
    return Text(f"← chosen by {target} {', '.join(f'#{sample}' for sample in by)}", "green")


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return _NONE if value is None else str(value)
