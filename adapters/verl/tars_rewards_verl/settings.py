"""What TARS needs of verl's config: refuse what cannot work, fill in what the user would otherwise have to know."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards_verl.audio import config as audio
from tars_rewards_verl.options import VerlOptions
from tars_rewards_verl.weight_push import WEIGHT_PUSH_DEADLINE

WORKER_LIBRARY = "tars_rewards_verl.worker"


def enabled(config: DictConfig) -> bool:
    """Whether ``reward.custom`` is set."""
    return bool(OmegaConf.select(config, "reward.custom"))


def check_config(config: DictConfig) -> None:
    """Refuse every configuration that TARS cannot train under.

    Raises:
        UnsupportedConfigError: Names the key, its value, why it cannot work and what to set instead.
    """

    def value(key: str, default: Any = None) -> Any:
        found = OmegaConf.select(config, key)
        return default if found is None else found

    def refuse(key: str, why: str) -> None:
        raise UnsupportedConfigError(
            f"reward.custom={value('reward.custom')} cannot run with {key}={value(key)}: {why}"
        )

    actor = "actor_rollout_ref.actor"
    strategy = value(f"{actor}.strategy", "fsdp")
    if strategy not in ("fsdp", "fsdp2"):
        refuse(
            f"{actor}.strategy",
            "hidden states are pooled in the FSDP engine's log-prob forward, and other engines spread the layers of one "
            "completion over ranks; set it to fsdp2",
        )
    for key in (f"{actor}.ulysses_sequence_parallel_size", f"{actor}.fsdp_config.ulysses_sequence_parallel_size"):
        if value(key, 1) > 1:
            refuse(key, "each rank would pool its part of a completion only; set it to 1")
    if not value("trainer.use_v1", True):
        refuse("trainer.use_v1", "the legacy trainer is not supported; set it to True")
    if value("algorithm.rollout_correction.bypass_mode", False):
        refuse(
            "algorithm.rollout_correction.bypass_mode",
            "it skips the log-prob forward that hidden states are taken from; set it to False",
        )
    if value("algorithm.filter_groups.enable", False):
        refuse(
            "algorithm.filter_groups.enable",
            "it evicts one prompt of a pair and keeps the other; set it to False",
        )
    if value("trainer.v1.sampler.sync_refill_failed_groups", False):
        refuse(
            "trainer.v1.sampler.sync_refill_failed_groups",
            "it replaces one failed prompt by one of another pair; set it to False",
        )
    if value("reward.custom_reward_function.path"):
        refuse(
            "reward.custom_reward_function.path",
            "both would give the base reward; subclass tars_rewards.verl.TARSReward, override `base`, and name your class "
            "in reward.custom instead",
        )
    if value("reward.reward_model.enable", False):
        refuse("reward.reward_model.enable", "both would give the base reward; set it to False")
    for key in ("data.train_batch_size", "data.gen_batch_size"):
        if value(key, 2) % 2:
            refuse(key, "a batch counts prompts, two for a pair; set it to an even number")
    if value("actor_rollout_ref.rollout.n", 1) < 2:
        refuse(
            "actor_rollout_ref.rollout.n",
            "advantages are relative to the other completions of the same prompt; set it to 2 or more (the paper: 4)",
        )


def check_trainer_class(stock: type) -> None:
    """Refuse trainers that are not synchronous.

    Raises:
        UnsupportedConfigError: ``stock`` does not derive from ``PPOTrainerSync``.
    """
    from verl.trainer.ppo.v1 import PPOTrainerSync

    if not issubclass(stock, PPOTrainerSync):
        raise UnsupportedConfigError(
            f"reward.custom cannot run with {stock.__name__}: asynchronous trainers drop or delay single prompts, which "
            "tears pairs apart; set trainer.v1.trainer_mode=sync (or a mode whose trainer derives from PPOTrainerSync)"
        )


def prepare_config(config: DictConfig) -> None:
    """Fill in what TARS needs; what the user has set stays. Safe to call twice."""
    with open_dict(config):
        manager = config.reward.reward_manager
        manager.source, manager.name = "importlib", "TARSRewardManager"
        manager.module.path = "pkg://tars_rewards_verl.reward_manager"
        # The guard against lost weight pushes and silenced audio compares vLLM's log-probs with the actor's.
        rollout = config.actor_rollout_ref.rollout
        rollout.calculate_log_probs = True
        # verl's own place for settings of extensions: it reaches the training workers, reward.custom_kwargs does not.
        deadline = config.reward.custom_kwargs.get("weight_push_deadline", VerlOptions.weight_push_deadline)
        rollout.custom = {**(rollout.get("custom") or {}), WEIGHT_PUSH_DEADLINE: deadline}
        model = config.actor_rollout_ref.model
        libraries = model.get("external_lib")
        if libraries is None:
            model.external_lib = WORKER_LIBRARY
        else:
            names = list(libraries) if isinstance(libraries, list | ListConfig) else [libraries]
            if WORKER_LIBRARY not in names:
                model.external_lib = [*names, WORKER_LIBRARY]
    audio.prepare_config(config)
