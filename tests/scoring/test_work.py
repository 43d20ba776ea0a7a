"""How many questions are worked on together."""

import itertools

import pytest

from tars_rewards.errors import InputError
from tars_rewards.scoring import work


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(work, "time", made)
    return made


def sizes(clock, seconds_an_item, chunks):
    found = []
    for chunk in itertools.islice(work.paced(itertools.count()), chunks):
        found.append(len(chunk))
        clock.now += seconds_an_item * len(chunk)
    return found


def test_quick_work_comes_in_larger_portions(clock):
    assert sizes(clock, 0.001, 6) == [8, 16, 32, 64, 64, 64]


def test_slow_work_comes_in_smaller_portions(clock):
    assert sizes(clock, 20.0, 4) == [8, 4, 2, 2]
    assert sizes(clock, 1000.0, 5) == [8, 4, 2, 1, 1]


def test_nothing_is_lost_or_doubled(clock):
    assert list(itertools.chain(*work.paced(range(100)))) == list(range(100))


def test_what_comes_before_a_bad_item_is_worked_on():
    def items():
        yield from range(3)
        raise InputError("bad")

    portions = work.paced(items())
    assert next(portions) == [0, 1, 2]
    with pytest.raises(InputError, match="bad"):
        next(portions)
