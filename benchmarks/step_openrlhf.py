"""``python benchmarks/step_openrlhf.py``: what TARS adds to a step of OpenRLHF.

See `paired_steps`. Row ``step/openrlhf``.
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
PARTS = {
    "generation": ["generation"],
    "log_probs_and_reward": ["make_experience"],
    "reward": ["tars/seconds/finalise"],
    "update": ["ppo_train"],
    "weight_push": ["broadcast"],
}


def main() -> bool:
    """Run, and record the row; True if the goal is met."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paired_steps.train("openrlhf", directory, override=SETTINGS, program=PROGRAM)
        steps = paired_steps.read(directory, "steps")
    ratio, interval, details = paired_steps.compare(steps, rest=PARTS)
    return record("step/openrlhf", ratio, rounds=PAIRS, interval=interval, details={**details, "slots": SLOTS})


if __name__ == "__main__":
    sys.exit(not main())
