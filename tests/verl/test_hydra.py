"""`reward.custom` on verl's stock entry point, and what the plugin does to programs that are not verl."""

import json
import subprocess
import sys

import pytest

DRY = [sys.executable, "-m", "verl.trainer.main_ppo", "--cfg", "job", "--package", "reward"]


def run(*arguments, **environment):
    import os

    return subprocess.run(
        [*arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"VERL_PLATFORM": "cpu"} | environment,
    )


@pytest.mark.slow
def test_declared_keys_need_no_plus(tmp_path):
    done = run(
        *DRY, f"hydra.run.dir={tmp_path}", "reward.custom=tars_rewards.verl:TARSReward", "reward.custom_kwargs.alpha=0.3",
        "reward.custom_kwargs.layers=middle", "reward.custom_kwargs.max_rollout_kl=0.1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "custom: tars_rewards.verl:TARSReward" in done.stdout
    assert "alpha: 0.3" in done.stdout
    assert "format_weight: 0.5" in done.stdout


@pytest.mark.slow
def test_an_undeclared_key_is_refused_by_hydra(tmp_path):
    done = run(*DRY, f"hydra.run.dir={tmp_path}", "reward.custom_kwargs.alhpa=0.3")
    assert done.returncode != 0
    assert "alhpa" in done.stderr


@pytest.mark.slow
def test_the_rest_of_the_reward_config_is_verls_own():
    program = """
import json
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
with initialize_config_module("verl.trainer.config", version_base=None):
    config = OmegaConf.to_container(compose("ppo_trainer").reward)
config.pop("custom"), config.pop("custom_kwargs")
import importlib.resources, yaml
stock = importlib.resources.files("verl.trainer.config").joinpath("reward/reward.yaml").read_text()
print(json.dumps([config, OmegaConf.to_container(OmegaConf.create(stock))]))
"""
    done = run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, stock = json.loads(done.stdout.splitlines()[-1])
    for key in stock:
        if key != "reward_model":  # verl's defaults list adds to it
            assert ours[key] == stock[key]


def test_a_hydra_program_that_is_not_verl_is_left_alone(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "job.yaml").write_text("a: 1\n")
    (tmp_path / "job.py").write_text(
        "import hydra\n@hydra.main(config_path='conf', config_name='job', version_base=None)\n"
        "def main(config):\n    import hydra.core.hydra_config as h\n"
        "    print([s.path for s in h.HydraConfig.get().runtime.config_sources])\nmain()\n"
    )
    done = run(sys.executable, str(tmp_path / "job.py"), f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "tars" not in done.stdout.replace(str(tmp_path), "")
