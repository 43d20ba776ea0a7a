"""How a dataclass becomes flags: through tyro, with the documentation of its fields as help."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping
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
    hints = _hints(cls)
    return tyro.constructors.StructConstructorSpec(
        instantiate=functools.partial(_instantiate, cls),
        fields=tuple(
            tyro.constructors.StructFieldSpec(
                name=field.name,
                type=_annotation(hints[field.name], field.name),
                default=_default(field),
                helptext=functools.partial(_help, cls, field.name),
            )
            for field in dataclasses.fields(cls)
        ),
    )


class _NotTypeable:
    """Stands for a type that is there for type checkers only, such as a function's: nobody types one in a terminal."""


def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields, as far as they can be found when the program runs."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(cls, localns=unknown, include_extras=True)
        except NameError as error:
            if error.name is None or error.name in unknown:
                raise
            unknown[error.name] = _NotTypeable


def _annotation(hint: Any, name: str) -> Any:
    """The type of a field's flag; one of a single letter may be given with one dash too."""
    hint = _typeable(hint)
    return typing.Annotated[hint, tyro.conf.arg(aliases=(f"-{name}",))] if len(name) == 1 else hint


def _typeable(hint: Any) -> Any:
    """A type in the form that the command line has for it: each thing in one way, and texts where nothing else fits."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        members = [_typeable(each) for each in arguments if each is not _NotTypeable]
        if any(typing.get_origin(each) is Mapping for each in members):  # then pairs are the same once more
            members = [each for each in members if typing.get_origin(each) is not Iterable]
        return typing.Union[(*(each for each in members if each is not str), *([str] if str in members else []))]
    if origin in (Mapping, Iterable, tuple):
        return origin[tuple(map(_typeable, arguments))]
    return hint


def _instantiate(cls: type, **values: Any) -> Any:
    try:
        return cls(**values)
    except ConfigError as error:
        raise RefusedSettings(error) from error


def _default(field: dataclasses.Field[Any]) -> Any:
    """What is declared: a default instance may hold it in another form, which is not that of the flag."""
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
