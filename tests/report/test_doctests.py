"""The examples in the report's docstrings run."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(("name", "least"), [("completions", 2), ("evaluation_charts", 2)])
def test_docstring_examples(name, least):
    result = doctest.testmod(import_module(f"tars_rewards.report.{name}"))
    assert result.failed == 0
    assert result.attempted >= least
