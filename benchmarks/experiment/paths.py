"""Where the experiment's files are; importing it lets the experiment import the demo's modules by name."""

import sys
from pathlib import Path

EXPERIMENT = Path(__file__).resolve().parent
REPOSITORY = EXPERIMENT.parents[1]
WORK = REPOSITORY / "runs" / "experiment"  # what is not committed

sys.path.insert(0, str(REPOSITORY / "examples" / "spoken_reasoning"))
