"""Every configuration that cannot work is refused, by its key."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import AdvantageEstimator, get_adv_estimator_fn

from tars_rewards.errors import ConfigError, UnsupportedConfigError
from tars_rewards_verl.settings import WORKER_LIBRARY, check_config, compute_dtypes, enabled, prepare_config

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "verl"

BASE = [
    "reward.custom=tars_rewards.verl:TARSReward",
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "algorithm.adv_estimator=grpo",
]


def config(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[*BASE, *overrides])


def test_the_ordinary_configuration_passes():
    check_config(config())


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.actor.strategy=megatron",
        "trainer.use_v1=False",
        "algorithm.rollout_correction.bypass_mode=True",
        "algorithm.filter_groups.enable=True",
        "trainer.v1.sampler.sync_refill_failed_groups=True",
        "trainer.v1.sampler.custom_sampler.path=mine.py",
        "reward.reward_manager.name=dapo",
        "reward.custom_reward_function.path=mine.py",
        "reward.reward_model.enable=True",
        "data.train_batch_size=3",
        "data.gen_batch_size=1",
        "actor_rollout_ref.rollout.n=1",
    ],
)
def test_what_cannot_work_is_refused_by_name(override):
    key, value = override.split("=")
    forced = config("++" + override)
    with pytest.raises(UnsupportedConfigError, match=f"{key}={value}"):
        check_config(forced)


@pytest.mark.parametrize("size", ["ulysses_sequence_parallel_size", "fsdp_config.ulysses_sequence_parallel_size"])
def test_sequence_parallelism_needs_the_attention_that_verl_exchanges_tokens_around(size):
    size, key = f"actor_rollout_ref.actor.{size}=2", "actor_rollout_ref.model.override_config.attn_implementation"
    check_config(config(size))
    for flash in ("flash_attention_2", "flash_attention_cpu"):
        check_config(config(size, f"+{key}={flash}"))
    for other in ("sdpa", "eager", "flex_attention"):
        check_config(config(f"+{key}={other}"))
        with pytest.raises(UnsupportedConfigError, match=rf"{key}={other}: .* set it to flash_attention_2"):
            check_config(config(size, f"+{key}={other}"))


@pytest.mark.parametrize("estimator", ["gae", "gdpo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax"])
def test_estimators_that_compare_across_prompts_are_refused(estimator):
    """verl's default is one of them; the message names the paper's."""
    with pytest.raises(UnsupportedConfigError, match=rf"algorithm.adv_estimator={estimator}: .* set it to grpo"):
        check_config(config(f"algorithm.adv_estimator={estimator}"))


@pytest.mark.parametrize("estimator", [each.value for each in AdvantageEstimator])
def test_of_verls_estimators_those_are_taken_that_look_at_a_prompts_own_completions(estimator):
    """The advantages of one prompt's completions stay, whatever those of the other prompt earned."""
    rewards = torch.tensor([1.0, 0.5, 0.2, 0.8, 0.3, 0.9])

    def advantages(rewards):
        token_rewards = torch.zeros(6, 4)
        token_rewards[:, 2] = rewards
        mask = torch.tensor([[1, 1, 1, 0]] * 3 + [[1, 1, 1, 1]] * 3)
        kwargs = {
            "index": np.array(["a"] * 3 + ["b"] * 3, dtype=object),
            "config": OmegaConf.create({"gamma": 1.0}),
            "values": torch.zeros(6, 4),
            "gamma": torch.tensor(1.0),
            "lam": torch.tensor(1.0),
            "reward_baselines": torch.zeros(6),
            "old_log_probs": torch.full((6, 4), -1.0),
            "sum_pi_squared": torch.full((6, 4), 0.5),
        }
        function = get_adv_estimator_fn(estimator)
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        kwargs = {name: value for name, value in kwargs.items() if name in names}
        return function(token_level_rewards=token_rewards, response_mask=mask, **kwargs)[0][:3]

    other = rewards + torch.tensor([0.0, 0, 0, 5, 1, 3])
    alone = torch.allclose(advantages(rewards.clone()), advantages(other.clone()), atol=1e-5)
    try:
        check_config(config(f"algorithm.adv_estimator={estimator}"))
    except UnsupportedConfigError:
        # The baselines of gae (a critic's value) and remax (a greedy completion's reward) are no mean of completions, and
        # gdpo takes its rewards by name from what the reward loop gave: without the alignment terms.
        assert not alone or estimator in ("gae", "remax", "gdpo")
    else:
        assert alone


def test_an_estimator_of_ones_own_is_taken():
    check_config(config("algorithm.adv_estimator=mine"))


def test_a_reward_manager_of_ones_own_is_refused_and_ours_is_taken():
    mine = [
        "reward.reward_manager.source=importlib",
        "reward.reward_manager.name=Mine",
        "reward.reward_manager.module.path=mine.py",
    ]
    with pytest.raises(UnsupportedConfigError, match=r"reward_manager\.name=Mine: .* override `base`"):
        check_config(config(*mine))
    ours = config()
    prepare_config(ours)
    check_config(ours)  # as the trainer does, after the driver has prepared it


def test_prepare_fills_in_and_keeps_what_the_user_set():
    prepared = config("actor_rollout_ref.model.external_lib=mine", "++actor_rollout_ref.rollout.custom.a=1")
    prepare_config(prepared)
    prepare_config(prepared)
    assert list(prepared.actor_rollout_ref.model.external_lib) == ["mine", WORKER_LIBRARY]
    assert prepared.actor_rollout_ref.rollout.calculate_log_probs is True
    assert prepared.actor_rollout_ref.rollout.custom.a == 1
    assert prepared.reward.reward_manager.name == "TARSRewardManager"


def test_the_run_logs_directory_is_made_before_anything_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = config("reward.custom_kwargs.run_log=runs/log")
    prepare_config(made)
    prepare_config(made)
    assert made.reward.custom_kwargs.run_log == str(tmp_path / "runs" / "log")
    assert (tmp_path / "runs" / "log").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="run_log is 'file/log', where nothing can be written"):
        prepare_config(config("reward.custom_kwargs.run_log=file/log"))
    with pytest.raises(ConfigError, match="run_log must be a directory or null, got 5"):
        prepare_config(config("reward.custom_kwargs.run_log=5"))


def test_the_key_is_off_by_default():
    with initialize_config_module("verl.trainer.config", version_base=None):
        assert not enabled(compose("ppo_trainer"))


def test_the_dtypes_compared_are_the_rollouts_and_the_actors():
    assert compute_dtypes(config()) == ("bfloat16", "bf16")
    key = "++actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32"
    exact = (key, "actor_rollout_ref.rollout.dtype=float32")
    assert compute_dtypes(config(*exact)) == ("float32", "fp32")
    # verl pushes merged weights rounded to bfloat16, whatever the engine computes in.
    assert compute_dtypes(config(*exact, "++actor_rollout_ref.model.lora.merge=True")) == ("bfloat16", "fp32")


@pytest.mark.parametrize("name", ["qwen2_5_omni_7b_8gpu", "demo"])
def test_the_example_configs_compose_and_pass(name, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "verl.trainer.main_ppo", ModuleType("main_ppo"))  # the program is verl's
    overrides = [
        "hydra.searchpath=[pkg://verl.trainer.config]",
        "reward.custom=tars_rewards.verl:TARSReward",
        f"actor_rollout_ref.model.path={tiny / 'qwen2_5_omni'}",
        "data.train_files=train.parquet",
        "data.val_files=test.parquet",
    ]
    with initialize_config_dir(str(EXAMPLES), version_base=None):
        composed = compose(name, overrides=overrides)
    for _ in range(2):
        check_config(composed)
        prepare_config(composed)
    assert composed.algorithm.adv_estimator == "grpo"
    assert composed.algorithm.norm_adv_by_std_in_grpo is False
    assert composed.actor_rollout_ref.rollout.n == 4
    assert composed.data.custom_cls.name == "SpeechDataset"
    assert composed.actor_rollout_ref.model.override_config.freeze_towers is True


def test_the_8_gpu_config_names_verls_own_keys():
    """A key that verl does not know would be carried along without an effect."""

    def unknown(config, known, prefix=""):
        for key, value in config.items():
            if key not in known:
                yield f"{prefix}{key}"
            elif isinstance(value, dict) and isinstance(known[key], dict):
                yield from unknown(value, known[key], f"{prefix}{key}.")

    with initialize_config_module("verl.trainer.config", version_base=None):
        stock = OmegaConf.to_container(compose("ppo_trainer"))
    example = OmegaConf.to_container(OmegaConf.load(EXAMPLES / "qwen2_5_omni_7b_8gpu.yaml"))
    assert list(unknown(example, stock)) == ["defaults"]
