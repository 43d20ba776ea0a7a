"""Each tiny family's checkpoint and its model, loaded once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_registry import families

from tars_rewards.speech.model import SpeechModel

FAMILIES = {module.NAME: module for module in families()}


@dataclass(frozen=True)
class Loaded:
    """A tiny family as the tests use it."""

    module: Any
    directory: Path
    speech: SpeechModel


@pytest.fixture(scope="session")
def loaded(tmp_path_factory):
    """Gives a family by its name."""
    known: dict[str, Loaded] = {}

    def load(name):
        module = FAMILIES[name]
        if not module.available():
            pytest.skip(f"the installed transformers has no {name}")
        if name not in known:
            directory = module.make(tmp_path_factory.mktemp(name))
            known[name] = Loaded(module, directory, SpeechModel.load(directory, device="cpu"))
        return known[name]

    return load


@pytest.fixture(params=FAMILIES)
def tiny_family(request, loaded):
    """Every family in turn."""
    return loaded(request.param)
