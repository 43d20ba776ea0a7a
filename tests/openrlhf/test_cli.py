"""The stock program by way of ours: its help, and refusals before anything is started."""

import os
import subprocess
import sys

import pytest
from launch import ENVIRONMENT, TINY, flags_of

from tars_rewards_openrlhf import cli


def program(*flags):
    return subprocess.run(
        [sys.executable, "-m", "tars_rewards.openrlhf", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )


@pytest.mark.slow
def test_help_shows_our_flags_beside_theirs():
    done = program("--help")
    assert done.returncode == 0, done.stderr[-3000:]
    for flag in ("--actor.adam.lr", "--reward.remote_url", "--tars.alpha", "--tars.audio_key"):
        assert flag in done.stdout


@pytest.mark.slow
def test_an_odd_batch_is_refused_before_ray_starts(tiny):
    settings = {**TINY, "actor.model_name_or_path": tiny / "text", "data.prompt_dataset": tiny / "text.parquet"}
    done = program(*flags_of({**settings, "rollout.batch_size": 3}))
    assert done.returncode != 0
    assert "TARS cannot run with --rollout.batch_size 3: a batch counts prompts, two for a question" in done.stderr
    assert "Started a local Ray instance" not in done.stdout + done.stderr


def test_other_parsers_are_left_alone(monkeypatch):
    import argparse

    before = argparse.ArgumentParser.parse_args
    seen = []

    def run_module(name, **_):
        other = argparse.ArgumentParser()
        other.add_argument("--mine", type=int)
        seen.append(other.parse_args(["--mine", "3"]))

    monkeypatch.setattr(cli.runpy, "run_module", run_module)
    monkeypatch.setattr(cli, "install_actors", lambda: None)
    monkeypatch.setattr(sys, "argv", ["x"])
    cli.main([])
    assert vars(seen[0]) == {"mine": 3}
    assert argparse.ArgumentParser.parse_args is before
