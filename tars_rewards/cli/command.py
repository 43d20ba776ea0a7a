"""What the commands have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg


@dataclass(frozen=True, kw_only=True)
class Command:
    """What all commands have."""

    runs: ClassVar[str]
    """Where its function is: module of this package, and name."""

    debug: bool = False
    """Show where an error was raised, instead of its sentence alone."""

    @property
    def kept(self) -> str:
        """What an interruption leaves behind, and how to go on; empty if it leaves nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class ModelCommand(Command):
    """A command that runs a model."""

    device: str = "auto"
    """Where the model runs, such as cuda, cuda:1 or cpu; auto: the first accelerator there is."""
    dtype: str = "auto"
    """The model's precision, such as bfloat16 or float32; auto: the checkpoint's own."""
    system: Annotated[str | None, arg(metavar="TEXT")] = None
    """System prompt of questions that bring none; None: what the model's chat template says."""
    instruction: Annotated[str | None, arg(metavar="TEXT")] = None
    """Text that follows the question, written or spoken, where it brings none of its own."""
    token_budget: int = 16384
    """Tokens of a batch, padding included. Where that does not fit in memory, the batch is halved."""
