"""Run the real server: ``python serve_program.py '{"model": …, "settings": {…}}'``."""

import json
import sys
import time

from tars_rewards.server import ServerSettings, run


def main() -> int:
    task = json.loads(sys.argv[1])

    def make():
        time.sleep(task.get("seconds_to_load", 0))
        from tars_rewards import Scorer, TARSConfig  # loads torch

        class SlowScorer(Scorer):
            """Takes its time over every batch."""

            def score_batch(self, questions):
                time.sleep(task.get("seconds_a_batch", 0))
                return super().score_batch(questions)

        model = task["model"]
        return SlowScorer(model, config=TARSConfig(alpha=1 if model else 0, beta=0), device="cpu")

    return run(make, ServerSettings(**task["settings"]))


if __name__ == "__main__":
    sys.exit(main())
