"""Fixtures of the spoken-reasoning example: its modules, its base model, a small data set."""

import sys
from pathlib import Path

import pytest

# The solver beside the tests.
sys.path.insert(0, str(Path(__file__).parent))

EXAMPLE = Path(__file__).parents[2] / "examples" / "spoken_reasoning"


@pytest.fixture(autouse=True, scope="session")
def _example_on_path():
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))


@pytest.fixture(scope="session")
def questions():
    import questions

    return questions


@pytest.fixture(scope="session")
def base_model(tmp_path_factory):
    import model

    directory = tmp_path_factory.mktemp("base")
    model.assemble(directory)
    return directory


@pytest.fixture(scope="session")
def loaded(base_model):
    import model

    return model.load(base_model)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    import make_data

    directory = tmp_path_factory.mktemp("data")
    make_data.write_split(directory, "train", 8, seed=0)
    make_data.write_split(directory, "test", 8, seed=0)
    return directory
