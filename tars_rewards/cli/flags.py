"""How a dataclass becomes flags: through tyro, with the documentation of its fields as help."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

import docstring_parser
import tyro

from tars_rewards.errors import ConfigError

registry = tyro.constructors.ConstructorRegistry()
"""Rules beside tyro's own."""


class RefusedSettings(Exception):
    """Carries a ConfigError through tyro, which would make a ValueError into a message that names its own internals."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(error)
        self.error = error


@registry.struct_rule
def documented(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
    """The fields of a dataclass of ours as flags.

    tyro has such a rule, which takes the line breaks of a field's documentation for intended ones.
    """
    cls = info.type
    if not (dataclasses.is_dataclass(cls) and cls.__module__.startswith("tars_rewards.")):
        return None  # tyro has dataclasses of its own
    hints = typing.get_type_hints(cls, include_extras=True)
    return tyro.constructors.StructConstructorSpec(
        instantiate=functools.partial(_instantiate, cls),
        fields=tuple(
            tyro.constructors.StructFieldSpec(
                name=field.name,
                type=_annotation(hints[field.name], field.name),
                default=_default(field, info.default),
                helptext=functools.partial(_help, cls, field.name),
            )
            for field in dataclasses.fields(cls)
        ),
    )


def _annotation(annotation: Any, name: str) -> Any:
    """The type of a field, so that a single number is not taken for a text, and one letter is a flag with one dash too."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType) and str in members:
        annotation = typing.Union[(*(each for each in members if each is not str), str)]
    return typing.Annotated[annotation, tyro.conf.arg(aliases=(f"-{name}",))] if len(name) == 1 else annotation


def _instantiate(cls: type, **values: Any) -> Any:
    try:
        return cls(**values)
    except ConfigError as error:
        raise RefusedSettings(error) from error


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if dataclasses.is_dataclass(instance):  # the default of the field that holds this dataclass
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING_NONPROP


def _help(cls: type, name: str) -> str | None:
    texts = (_documentation(owner).get(name) for owner in cls.__mro__)
    return next((" ".join(text.split()) for text in texts if text), None)


@functools.cache
def _documentation(cls: type) -> dict[str, str]:
    if not dataclasses.is_dataclass(cls):
        return {}
    return {each.arg_name: each.description or "" for each in docstring_parser.parse_from_object(cls).params}
