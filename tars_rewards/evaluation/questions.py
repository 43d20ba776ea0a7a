"""The questions of an evaluation, and by what it is seen that they have changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tars_rewards.scoring.journal import fingerprint
from tars_rewards.scoring.source import RowSource
from tars_rewards.scoring.tables import Row


class Questions:
    """The rows of a source, or the first ones.

    Args:
        source: Rows.
        limit: Only that many; None: all.
    """

    def __init__(self, source: RowSource, limit: int | None) -> None:
        self.name, self.root, self.where = source.name, source.root, source.where
        self._source, self._limit = source, limit
        self._seen: tuple[int, int] | None = None

    def rows(self) -> Iterator[Row]:
        """All rows, from the first."""
        content = prompts = 0
        for row in islice(self._source.rows(), self._limit):
            if self._seen is None:
                content += fingerprint(row.value)
                prompts += _own_prompts(row.value)
            yield row
        self._seen = self._seen or (content, prompts)

    def content(self) -> str:
        """Fingerprint of all rows, good and bad, whatever their order."""
        return f"{self._fingerprints()[0] % 2**64:016x}"

    def prompts(self) -> str | None:
        """Fingerprint of the system prompts and instructions that rows bring; None where none does."""
        own = self._fingerprints()[1]
        return f"{own % 2**64:016x}" if own else None

    def _fingerprints(self) -> tuple[int, int]:
        if self._seen is None:
            deque(self.rows(), maxlen=0)
        return self._seen or (0, 0)


def _own_prompts(value: Any) -> int:
    own = [value.get(name) for name in ("id", "system", "instruction")] if isinstance(value, Mapping) else []
    return fingerprint(own) if any(each is not None for each in own[1:]) else 0
