"""The ``--tars.*`` flags: one for each field of the reward's config and of the adapter's options."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tars_rewards.config import TARSConfig
from tars_rewards.errors import ConfigError
from tars_rewards.integration.options import AdapterOptions, split_settings

PREFIX = "tars."


@dataclass(frozen=True)
class OpenRLHFOptions(AdapterOptions):
    """What the adapter needs to know that the reward does not."""

    audio_key: str = "audios"
    """Dataset column with the clips of a spoken prompt: a list of paths, or of mappings with bytes or samples."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to OpenRLHF's parser, with the fields' own documentation as help."""
    group = parser.add_argument_group(
        "TARS", "speech completions rewarded for agreeing with written ones (tars-rewards)"
    )
    for owner in (TARSConfig, OpenRLHFOptions):
        documentation = _documentation(owner)
        for field in dataclasses.fields(owner):
            flag, text = f"--{PREFIX}{field.name}", documentation[field.name].replace("%", "%%")
            if isinstance(field.default, bool):
                group.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=text)
            else:
                group.add_argument(flag, type=_value, default=field.default, help=f"{text} Default: {field.default}.")


def read_flags(settings: Mapping[str, Any]) -> tuple[TARSConfig, OpenRLHFOptions]:
    """The config and the options from the flags' values, by name without the prefix.

    The embedder runs on the CPU unless ``embedder_device`` says otherwise: it shares a process with vLLM, whose
    accelerator is full.

    Raises:
        ConfigError: A value is bad.
    """
    try:
        config, options = split_settings(settings, OpenRLHFOptions)
    except ConfigError as error:
        raise ConfigError(f"--{PREFIX}…: {error}") from error
    if config.embedder_device is None:
        config = dataclasses.replace(config, embedder_device="cpu")
    return config, options


def _value(text: str) -> Any:
    """A number, a list, null or true, a mapping as a list of pairs, or else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    # OpenRLHF makes namespaces of mappings, and of names with dots in them namespaces of namespaces.
    return [list(pair) for pair in value.items()] if isinstance(value, dict) else value


def _documentation(owner: type) -> dict[str, str]:
    """The texts below the fields of a dataclass and of the classes that it derives from."""
    found: dict[str, str] = {}
    for cls in reversed(owner.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        (definition,) = (node for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef))
        for field, text in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found
