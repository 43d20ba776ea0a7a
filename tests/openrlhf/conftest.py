import sys
from pathlib import Path

# The helpers beside these tests.
sys.path.insert(0, str(Path(__file__).parent))
