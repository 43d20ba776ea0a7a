"""What the runs say: ``python benchmarks/experiment/analyse.py`` rewrites the results in README.md, and the plots.

Outcomes were declared before the runs (README.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import tables
from comparisons import Run, grouped
from curves import write_plots
from experiment_results import load

README = Path(__file__).parent / "README.md"
PLOTS = README.parent / "plots"
BEGIN, END = "<!-- results: written by analyse.py -->", "<!-- end of results -->"
TABLES = (
    tables.arm_table,
    tables.comparison_table,
    tables.controls_table,
    tables.verdicts,
    tables.training_table,
    tables.layers_table,
    tables.other_sets_table,
)


def report(runs: Iterable[Run]) -> str:
    """The README's part on results."""
    parts = []
    for base, arms in grouped(runs).items():
        parts += [f"### {base.capitalize()} base", ""]
        for table in (made(arms) for made in TABLES):
            if table:
                parts += [*table, ""]
        plots = [f"[{path.stem}](plots/{path.name})" for path in sorted(PLOTS.glob(f"{base}_*.png"))]
        parts += [f"Plots: {', '.join(plots)}", ""] if plots else []
    return "\n".join(parts).strip()


def replace_results(text: str, found: str) -> str:
    """The README with its results exchanged.

    Raises:
        ValueError: It lacks the marks between which they stand.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"expected {BEGIN} and {END} in {README}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{found}\n\n{END}", text)


def main() -> None:
    """Command line."""
    runs = load()
    for path in write_plots(grouped(runs), PLOTS):
        print(path)
    README.write_text(replace_results(README.read_text(), report(runs)))
    print(report(runs))


if __name__ == "__main__":
    sys.exit(main())
