"""The experiment's modules, by name."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

# `solver`, which answers questions from their text, is beside the tests of the demo.
sys.path[:0] = [str(TESTS.parent / "benchmarks" / "experiment"), str(TESTS / "examples")]
