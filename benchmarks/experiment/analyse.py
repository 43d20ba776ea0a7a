"""What the runs say: ``python benchmarks/experiment/analyse.py`` rewrites the results in README.md and details.md, and
the plots.

Outcomes were declared before the runs (README.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import tables
from comparisons import Arms, Run, grouped
from curves import write_plots
from experiment_results import load

HERE = Path(__file__).parent
README, DETAILS, PLOTS = HERE / "README.md", HERE / "details.md", HERE / "plots"
BEGIN, END = "<!-- results: written by analyse.py -->", "<!-- end of results -->"


def plot_links(arms: Arms) -> list[str]:
    """Markdown: where a base's plots are."""
    base = next(iter(arms.values()))[0]["base"]
    links = [f"[{path.stem}](plots/{path.name})" for path in sorted(PLOTS.glob(f"{base}_*.png"))]
    return [f"Plots: {', '.join(links)}"] if links else []


PAGES = {
    README: (tables.arm_table, tables.comparison_table, tables.onset_table, tables.controls_table, tables.verdicts),
    DETAILS: (tables.training_table, tables.layers_table, tables.other_sets_table, tables.seconds_table, plot_links),
}


def report(runs: Iterable[Run], page: Path) -> str:
    """The part of a page that is on results."""
    parts = []
    for base, arms in grouped(runs).items():
        parts += [f"### {base.capitalize()} base", ""]
        for lines in (made(arms) for made in PAGES[page]):
            parts += [*lines, ""] if lines else []
    return "\n".join(parts).strip()


def replace_results(text: str, found: str) -> str:
    """A page with its results exchanged.

    Raises:
        ValueError: It lacks the marks between which they stand.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"expected a page with {BEGIN} and {END}, got one without")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{found}\n\n{END}", text)


def main() -> None:
    """Command line."""
    runs = load()
    for path in write_plots(grouped(runs), PLOTS):
        print(path)
    for page in PAGES:
        page.write_text(replace_results(page.read_text(), report(runs, page)))
        print(page)


if __name__ == "__main__":
    sys.exit(main())
