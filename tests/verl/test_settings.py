"""Every configuration that cannot work is refused, by its key."""

import pytest
from hydra import compose, initialize_config_module

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards_verl.settings import WORKER_LIBRARY, check_config, enabled, prepare_config

BASE = [
    "reward.custom=tars_rewards.verl:TARSReward",
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.strategy=fsdp2",
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
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2",
        "trainer.use_v1=False",
        "algorithm.rollout_correction.bypass_mode=True",
        "algorithm.filter_groups.enable=True",
        "trainer.v1.sampler.sync_refill_failed_groups=True",
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


def test_prepare_fills_in_and_keeps_what_the_user_set():
    prepared = config("actor_rollout_ref.model.external_lib=mine", "++actor_rollout_ref.rollout.custom.a=1")
    prepare_config(prepared)
    prepare_config(prepared)
    assert list(prepared.actor_rollout_ref.model.external_lib) == ["mine", WORKER_LIBRARY]
    assert prepared.actor_rollout_ref.rollout.calculate_log_probs is True
    assert prepared.actor_rollout_ref.rollout.custom.a == 1
    assert prepared.reward.reward_manager.name == "TARSRewardManager"


def test_the_key_is_off_by_default():
    with initialize_config_module("verl.trainer.config", version_base=None):
        assert not enabled(compose("ppo_trainer"))
