"""The program `tars-rewards`.

===============  ============================================================================
``commands``     the commands and their flags; ``command`` is what they have in common, and
                 ``evidence_commands`` are those that measure and show
``flags``        how dataclasses become flags
``scoring``      ``score`` and ``sample``
``inspection``   ``inspect``
``doctor``       ``doctor``; ``installation`` and ``probes`` find out what it shows
``models``       ``models``
``serve``        ``serve``
``evidence``     ``evaluate``, ``drift``, ``compare`` and ``report``
``messages``     what is said on stderr
===============  ============================================================================

Exit codes: 0 fine; 2 bad usage or input; 130 interrupted; 141 nobody reads the output any more; 1 any other error.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from tars_rewards.cli.messages import PROGRAM, say
from tars_rewards.errors import ConfigError, InputError, TARSError

if TYPE_CHECKING:
    from tars_rewards.cli.command import Command

# Paragraphs of one line: tyro does not wrap them.
DESCRIPTION = """Rewards for Speech LLMs (TARS), without an RL framework.

Exit codes: 0 fine, 2 bad usage or input, 130 interrupted, 1 any other error.

Shell completion: tars-rewards --tyro-write-completion bash FILE (or zsh, fish)."""
_INTERRUPTED, _NOBODY_READS = 130, 141  # what a shell says of SIGINT and SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its arguments, without the program's name; None: those of this process.

    Returns:
        The exit code.

    Raises:
        SystemExit: By tyro: 2 where the arguments are wrong, 0 where help was asked for.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What Python still holds for standard output would raise this again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS


def parse(argv: Sequence[str] | None = None) -> Command:
    """The command that the arguments ask for.

    Raises:
        ConfigError: A setting is out of range.
        SystemExit: As `main`.
    """
    import tyro

    from tars_rewards.cli.commands import COMMANDS
    from tars_rewards.cli.flags import RefusedSettings, registry

    try:
        command: Command = tyro.cli(
            functools.reduce(operator.or_, itertools.starmap(_subcommand, COMMANDS.items())),
            prog=PROGRAM,
            description=DESCRIPTION,
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
            registry=registry,
        )
    except RefusedSettings as refused:
        raise refused.error from None
    return command


def _subcommand(name: str, command: type[Command]) -> Any:
    import tyro

    # Of a command without required flags, tyro would not show the documentation.
    return Annotated[command, tyro.conf.subcommand(name, description=inspect.getdoc(command))]


def _run(argv: Sequence[str] | None) -> int:
    command = None
    try:
        command = parse(argv)
        module, function = command.runs.split(":")
        return int(getattr(import_module(f"{__name__}.{module}"), function)(command))
    except KeyboardInterrupt:
        say(f"interrupted: {command.kept}" if command and command.kept else "interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except (TARSError, OSError) as error:  # an OSError names its file: no permission, no space left
        if command and command.debug:
            traceback.print_exc()
        else:
            say(str(error))
        if isinstance(error, OSError) and command and command.kept:
            say(command.kept)
        return 2 if isinstance(error, ConfigError | InputError) else 1
