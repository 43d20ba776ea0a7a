"""Messages to whoever typed the command."""

from __future__ import annotations

import sys

PROGRAM = "tars-rewards"


def say(sentence: str) -> None:
    """Print a message, on stderr: standard output is for data."""
    print(f"{PROGRAM}: {sentence}", file=sys.stderr, flush=True)
