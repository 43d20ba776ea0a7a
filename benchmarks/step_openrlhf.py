"""``python benchmarks/step_openrlhf.py``: what TARS adds to a step of OpenRLHF.

See `paired_steps`. Row ``step/openrlhf``; with ``--demo``, of the demo's own policy, ``step/openrlhf/demo``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import paired_steps
from paired_steps import PAIRS, QUESTIONS, SLOTS, WARM_UP
from results import record

PROGRAM = [str(Path(__file__).with_name("alternating_openrlhf.py"))]
SETTINGS = [
    *("--actor.adam.lr", "0"),
    *("--tars.run_log", "null"),
    *("--data.max_samples", str(2 * QUESTIONS * (WARM_UP + PAIRS))),
]
# OpenRLHF's policy and rollouts are in bfloat16 in any case.
LARGER = ["--tars.embedder_dtype", "bfloat16"]
PARTS = {
    "generation": ["generation"],
    "log_probs_and_reward": ["make_experience"],
    "reward": ["tars/seconds/finalise"],
    "update": ["ppo_train"],
    "weight_push": ["broadcast"],
}


def main(*, demo: bool) -> bool:
    """Run, and record the row; True if the goal is met."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        settings = SETTINGS if demo else [*SETTINGS, *LARGER]
        paired_steps.train("openrlhf", directory, demo=demo, override=settings, program=PROGRAM)
        steps = paired_steps.read(directory, "steps")
    ratio, interval, details = paired_steps.compare(steps, rest=PARTS)
    name = "step/openrlhf/demo" if demo else "step/openrlhf"
    return record(name, ratio, rounds=PAIRS, interval=interval, details={**details, "slots": SLOTS})


if __name__ == "__main__":
    sys.exit(not main(demo=paired_steps.asked_for_demo("What TARS adds to a step of OpenRLHF.")))
