"""The questions of an evaluation, and by what it is seen that they have changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

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
        self._content: str | None = None

    def rows(self) -> Iterator[Row]:
        """All rows, from the first."""
        rows = islice(self._source.rows(), self._limit)
        if self._content is not None:
            yield from rows
            return
        total = 0
        for row in rows:
            total += fingerprint(row.value)
            yield row
        self._content = f"{total % 2**64:016x}"

    def content(self) -> str:
        """Fingerprint of all rows, good and bad, whatever their order."""
        if self._content is None:
            deque(self.rows(), maxlen=0)
        return str(self._content)
