"""The experiment's modules, by name."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# `solver`, which answers questions from their text, is beside the tests of the demo.
sys.path[:0] = [str(TESTS.parent / "benchmarks" / "experiment"), str(TESTS / "examples")]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The demo's base model."""
    import paths  # noqa: F401  (lets the demo's modules be found)
    from model import assemble

    directory = tmp_path_factory.mktemp("base")
    assemble(directory)
    return directory


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A few questions of each of the sets that trainings and measurements read."""
    import paths  # noqa: F401  (lets the demo's modules be found)
    from make_data import write_split

    directory = tmp_path_factory.mktemp("experiment") / "data"
    for split, questions in (("train", 18), ("dev", 6), ("test", 10)):
        write_split(directory, split, questions, seed=0)
    return directory


@pytest.fixture(scope="session")
def heard_cache(data):
    return data.parent / "heard"
