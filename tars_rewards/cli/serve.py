"""`tars-rewards serve`: thin over `server.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tars_rewards.cli.scoring import make_scorer

if TYPE_CHECKING:
    from tars_rewards.cli.commands import Serve


def serve(command: Serve) -> int:
    """Serve until told to stop; the model is loaded while the server already listens.

    Raises:
        MissingDependencyError: The extra `serve` is not installed.
        TARSError: As `server.run`.
    """
    from tars_rewards.server import run

    # No progress bar: the log is of JSON lines.
    return run(lambda: make_scorer(command, command.model, command.reward, progress=False), command.settings)
