"""Score questions by the Python API for some seconds, and say how fast: ``python offline.py DIRECTORY``."""

import json
import sys
import time
from pathlib import Path

import torch

from tars_rewards import Scorer, TARSConfig


def main(directory: Path) -> None:
    task = json.loads((directory / "offline.json").read_text())
    torch.set_num_threads(1)
    scorer = Scorer(task["model"], config=TARSConfig(beta=0), device="cpu")
    expected = [scored.rows() for scored in scorer.score(task["rows"])]  # and warms up
    rates, end = [], time.perf_counter() + task["seconds"]
    while time.perf_counter() < end:
        begun = time.perf_counter()
        scored = [each.rows() for each in scorer.score(task["rows"])]
        rates.append(len(scored) / (time.perf_counter() - begun))
    (directory / "scored.json").write_text(json.dumps({"rates": rates, "rows": expected}))


main(Path(sys.argv[1]))
