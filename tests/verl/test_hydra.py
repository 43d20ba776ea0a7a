"""`reward.custom` on verl's stock entry point, and what the plugin does to programs that are not verl."""

import json
import os
import subprocess
import sys

import pytest

DRY = [sys.executable, "-m", "verl.trainer.main_ppo", "--cfg", "job", "--package", "reward"]


def run(*arguments, **environment):
    # Without the adapter verl knows no CPU platform, and needs none to compose its config.
    platform = {} if "VERL_USE_EXTERNAL_PLUGINS" in environment else {"VERL_PLATFORM": "cpu"}
    clean = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    return subprocess.run([*arguments], capture_output=True, text=True, timeout=180, env=clean | platform | environment)


@pytest.mark.slow
def test_declared_keys_need_no_plus(tmp_path):
    done = run(
        *DRY, f"hydra.run.dir={tmp_path}", "reward.custom=tars_rewards.verl:TARSReward", "reward.custom_kwargs.alpha=0.3",
        "reward.custom_kwargs.layers=middle", "reward.custom_kwargs.max_rollout_kl=0.1",
        "reward.custom_kwargs.answer_extractor=voicebench",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "custom: tars_rewards.verl:TARSReward" in done.stdout
    assert "alpha: 0.3" in done.stdout
    assert "answer_extractor: voicebench" in done.stdout
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
    """Also one whose path has the letters, and that has a reward of its own."""
    config = tmp_path / "silverlake" / "config"
    (config / "reward").mkdir(parents=True)
    (config / "job.yaml").write_text("defaults: [reward: reward]\n")
    (config / "reward" / "reward.yaml").write_text("mine: 1\n")
    program = config.parent / "job.py"
    program.write_text(
        "import hydra\n@hydra.main(config_path='config', config_name='job', version_base=None)\n"
        "def main(config):\n    import hydra.core.hydra_config as h\n"
        "    print([s.provider for s in h.HydraConfig.get().runtime.config_sources], config)\nmain()\n"
    )
    done = run(sys.executable, str(program), f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['hydra', 'main', 'schema'] {'reward': {'mine': 1}}"


def own_config(directory, name, text):
    directory.mkdir()
    (directory / f"{name}.yaml").write_text(text)
    return ["--config-path", str(directory), "--config-name", name]


@pytest.mark.slow
def test_the_key_is_legal_below_a_config_of_ones_own(tmp_path):
    """``--config-path`` puts the user's directory where verl's was; verl's comes by Hydra's search path."""
    own = own_config(
        tmp_path / "conf",
        "mine",
        "hydra: {searchpath: [pkg://verl.trainer.config]}\ndefaults: [ppo_trainer, _self_]\n"
        "reward: {custom_kwargs: {beta: 0.25}}\n",
    )
    done = run(*DRY, *own, f"hydra.run.dir={tmp_path}", "reward.custom=tars_rewards.verl:TARSReward")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "custom: tars_rewards.verl:TARSReward" in done.stdout
    assert "beta: 0.25" in done.stdout
    assert "alpha: 1.0" in done.stdout


# ---- verl did not load the adapter, and would ignore the key

KEEPS = "reward.custom cannot be set: VERL_USE_EXTERNAL_PLUGINS={} keeps verl from loading tars-rewards"


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "form"), [("none", "{}"), ("another,third", "+{}"), ("none", "in a file")])
def test_the_key_is_refused_where_verl_was_told_not_to_load_the_adapter(tmp_path, policy, form):
    key = "reward.custom=tars_rewards.verl:TARSReward"
    own = [form.format(key)]
    if form == "in a file":
        text = "hydra: {searchpath: [pkg://verl.trainer.config]}\ndefaults: [ppo_trainer, _self_]\nreward: {custom: 'x:Y'}\n"
        own = own_config(tmp_path / "conf", "mine", text)
    done = run(*DRY, f"hydra.run.dir={tmp_path}", *own, VERL_USE_EXTERNAL_PLUGINS=policy)
    assert done.returncode != 0
    assert KEEPS.format(policy) in done.stderr


@pytest.mark.slow
def test_without_the_key_verl_may_be_told_not_to_load_the_adapter(tmp_path):
    done = run(*DRY, f"hydra.run.dir={tmp_path}", "reward.num_workers=3", VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "custom: null" in done.stdout
    assert "num_workers: 3" in done.stdout


@pytest.mark.slow
def test_the_key_is_refused_where_the_adapter_failed():
    program = """
import pickle, copy
import tars_rewards_verl.audio as audio
audio.install = lambda: 1 / 0
import verl
from hydra import compose, initialize_config_module
with initialize_config_module("verl.trainer.config", version_base=None):
    config = pickle.loads(pickle.dumps(copy.deepcopy(compose("ppo_trainer"))))
    assert config.reward.custom is None
    try:
        compose("ppo_trainer", overrides=["reward.custom=a:B"])
    except Exception as error:
        print(error.__cause__)
"""
    done = run(sys.executable, "-c", program)
    assert "reward.custom cannot be set: tars-rewards failed when verl loaded it" in done.stdout, done.stderr[-2000:]
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "message"), [("none", "reward.custom is set, but VERL_USE"), ("tars_rewards", "fine")]
)
def test_a_worker_that_verl_did_not_prepare_ends(policy, message):
    """What ``actor_rollout_ref.model.external_lib`` imports in every process of a run with the key."""
    program = "import verl, sys\nimport tars_rewards_verl.worker\nprint('fine')"
    done = run(sys.executable, "-c", program, VERL_USE_EXTERNAL_PLUGINS=policy)
    assert message in done.stdout + done.stderr
    assert (done.returncode == 0) == (message == "fine")
