import sys
from pathlib import Path

import pytest

# The helpers beside these tests.
sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import make_everything


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Directory with every tiny model, clip and dataset of :mod:`tiny_models`."""
    directory = tmp_path_factory.mktemp("tiny")
    make_everything(directory)
    return directory
