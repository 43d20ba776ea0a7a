import sys
from pathlib import Path

import pytest

# The helpers beside these tests.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def scorer():
    from served import HeldScorer

    scorer = HeldScorer()
    yield scorer
    scorer.go.set()
