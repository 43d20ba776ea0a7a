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
    rates, processor_seconds, end = [], [], time.perf_counter() + task["seconds"]
    while time.perf_counter() < end:
        begun, used = time.perf_counter(), time.process_time()
        scored = [each.rows() for each in scorer.score(task["rows"])]
        rates.append(len(scored) / (time.perf_counter() - begun))
        processor_seconds.append((time.process_time() - used) / len(scored))
    (directory / "scored.json").write_text(
        json.dumps({"rates": rates, "processor_seconds": processor_seconds, "rows": expected})
    )


main(Path(sys.argv[1]))
