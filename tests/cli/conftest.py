"""The program in this process."""

import sys

import pytest

from tars_rewards.cli import main


@pytest.fixture
def call(capsys):
    """Run a command: exit code, standard output, standard error."""

    def run(*arguments):
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as end:  # tyro's
            code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def hide(monkeypatch):
    """Let a module seem not to be installed."""

    def hidden(name):
        monkeypatch.setitem(sys.modules, name, None)

    return hidden
