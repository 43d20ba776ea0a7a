"""Order of the tests, and what the tests of both frameworks share."""

import sys
from pathlib import Path

import pytest

# Helpers are imported by path, so that `tests/verl` never becomes a package `verl`.
sys.path.insert(0, str(Path(__file__).parent / "support"))


def pytest_collection_modifyitems(items):
    """The real training runs first: with two workers (``-n 2 --dist loadfile``) the other files run beside them."""
    items.sort(key=lambda item: item.get_closest_marker("training") is None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Directory with every tiny model, clip and dataset of `support/tiny_models.py`."""
    from tiny_models import make_everything

    directory = tmp_path_factory.mktemp("tiny")
    make_everything(directory)
    return directory


@pytest.fixture(scope="session")
def clips(tiny):
    return sorted((tiny / "clips").iterdir())
