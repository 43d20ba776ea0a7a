"""`tars-rewards models`: the families of Speech LLMs that can be scored."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tars_rewards.speech.families import TrainableFamily, known_families

if TYPE_CHECKING:
    from tars_rewards.cli.commands import Models


def models(command: Models) -> int:
    """Print the families, and whether the installed transformers has their classes."""
    import transformers

    there = set(dir(transformers))  # names only: hasattr would import every model
    rows: list[dict[str, Any]] = [
        {
            "family": family.name,
            "model_type": family.checkpoint_type,
            "model_class": family.model_class,
            "medium": family.medium,
            "trainable": isinstance(family, TrainableFamily),
            "in_transformers": family.model_class in there,
        }
        for family in known_families()
    ]
    if command.format == "json":
        print(json.dumps({"transformers": version("transformers"), "families": rows}, indent=2))
    else:
        _show(rows)
    return 0


def _show(rows: list[dict[str, Any]]) -> None:
    console = Console(highlight=False, markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("family", "model_type", "takes", "train", f"transformers {version('transformers')}"):
        table.add_column(column, no_wrap=column == "model_type", overflow="fold")
    for row in rows:
        train = "verl, OpenRLHF" if row["trainable"] else "–"
        there = "yes" if row["in_transformers"] else "no"
        table.add_row(row["family"], row["model_type"], f"text, {row['medium']}", train, there)
    console.print(table)
    console.print(
        "model_type stands in a checkpoint's config.json. All can be scored and sampled from; the column train says where "
        "they can be trained on what they hear. Tested are "
        "tiny random models of these families, not the published weights. For another model write a record and hand it to "
        "tars_rewards.speech.families.register_family, whose documentation says what goes in."
    )
