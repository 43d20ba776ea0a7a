"""The examples in the docstrings run."""

import doctest
from importlib import import_module

import pytest

MODULES = {
    "tars_rewards": 4,
    "tars_rewards.advantage": 1,
    "tars_rewards.answers": 8,
    "tars_rewards.base": 2,
    "tars_rewards.combiner": 1,
    "tars_rewards.config": 2,
    "tars_rewards.endpoint": 1,
    "tars_rewards.drift.behavior": 4,
    "tars_rewards.evaluation.endpoint_answer": 2,
    "tars_rewards.evaluation.records": 2,
    "tars_rewards.evaluation.statistics": 7,
    "tars_rewards.extraction": 2,
    "tars_rewards.extraction.voicebench": 3,
    "tars_rewards.integration.completion_embedder": 1,
    "tars_rewards.integration.rollout_kl": 2,
    "tars_rewards.metrics": 4,
    "tars_rewards.reference": 3,
    "tars_rewards.representation": 2,
    "tars_rewards.similarity": 2,
}


@pytest.mark.parametrize(("name", "least"), MODULES.items())
def test_docstring_examples(name: str, least: int) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.failed == 0
    assert result.attempted >= least  # examples that are lost are noticed
