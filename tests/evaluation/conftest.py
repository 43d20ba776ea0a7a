"""A chat endpoint, and settings of a small evaluation by it."""

import pytest
from chat_server import ChatServer
from voicebench import write_mmsu

from tars_rewards.evaluation.settings import EvaluationSettings


@pytest.fixture
def server():
    with ChatServer() as made:
        yield made


@pytest.fixture
def settings(server, tmp_path):
    return EvaluationSettings(
        model="tiny",
        benchmark="mmsu",
        data=str(write_mmsu(tmp_path / "data")),
        out=str(tmp_path / "run"),
        url=server.url,
        max_new_tokens=64,
        progress=False,
    )
