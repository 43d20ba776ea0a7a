import sys
from pathlib import Path

# `results` beside the benchmarks.
sys.path.insert(0, str(Path(__file__).parent))
