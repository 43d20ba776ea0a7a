import pytest


@pytest.fixture
def scorer():
    from served import HeldScorer

    scorer = HeldScorer()
    yield scorer
    scorer.go.set()
