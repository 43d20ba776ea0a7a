"""Figures over the seeds of an arm, as the README shows them."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

ENOUGH = 3  # seeds for an interval or a test: of two it says nothing, and none is left where the two agree


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, with Student's 95 % interval where there are :data:`ENOUGH`."""

    mean: float
    half: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a seed."""
        count = len(values)
        if count < ENOUGH:
            return cls(statistics.fmean(values), None, count)
        half = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
        return cls(statistics.fmean(values), half, count)

    def show(self, digits: int = 3) -> str:
        """Such as ".655 ± .012"."""
        mean = short(f"{self.mean:.{digits}f}")
        return mean if self.half is None else f"{mean} ± {short(f'{self.half:.{digits}f}')}"

    def points(self) -> str:
        """Such as "+1.5 (-0.2 to +3.2)", in hundredths."""
        mean = f"{100 * self.mean:+.1f}"
        if self.half is None:
            return mean
        return f"{mean} ({100 * (self.mean - self.half):+.1f} to {100 * (self.mean + self.half):+.1f})"


def shown_p(p: float | None) -> str:
    """Such as ".031"; a dash where there is none."""
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else short(f"{p:.3f}")


def short(number: str) -> str:
    """A number without the zero before its point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", number)
