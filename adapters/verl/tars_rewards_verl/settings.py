"""What TARS needs of verl's config: refuse what cannot work, fill in what the user would otherwise have to know."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.integration.run_log import prepare_directory
from tars_rewards_verl.audio import config as audio
from tars_rewards_verl.options import VerlOptions
from tars_rewards_verl.refusal import refuse, setting
from tars_rewards_verl.weight_push import WEIGHT_PUSH_DEADLINE

WORKER_LIBRARY = "tars_rewards_verl.worker"
_MANAGER = {"source": "importlib", "name": "TARSRewardManager", "module.path": "pkg://tars_rewards_verl.reward_manager"}
_ACTOR = "actor_rollout_ref.actor"
_OWN_BASE = (
    "both would give the base reward; subclass tars_rewards.verl.TARSReward, override `base`, and name your class in "
    "reward.custom instead"
)

# Keys that must be off.
_OFF = {
    "algorithm.rollout_correction.bypass_mode": (
        "it skips the log-prob forward that hidden states are taken from; set it to False"
    ),
    "algorithm.filter_groups.enable": "it evicts one prompt of a pair and keeps the other; set it to False",
    "trainer.v1.sampler.sync_refill_failed_groups": (
        "it replaces one failed prompt by one of another pair; set it to False"
    ),
    "trainer.v1.sampler.custom_sampler.path": (
        "a batch must be the prompts that were sent, pair by pair, and a sampler may choose others; set it to null"
    ),
    "reward.custom_reward_function.path": _OWN_BASE,
    "reward.reward_model.enable": "both would give the base reward; set it to False",
}
# verl's estimators that compare a completion with others than those of its prompt, or with none.
_NOT_BY_PROMPT = ("gae", "gdpo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax")


def enabled(config: DictConfig) -> bool:
    """Whether ``reward.custom`` is set."""
    return bool(OmegaConf.select(config, "reward.custom"))


def check_config(config: DictConfig) -> None:
    """Refuse every configuration that TARS cannot train under.

    Raises:
        UnsupportedConfigError: Names the key, its value, why it cannot work and what to set instead.
    """
    for key, why in _OFF.items():
        if setting(config, key, False):
            refuse(config, key, why)
    if setting(config, f"{_ACTOR}.strategy", "fsdp") not in ("fsdp", "fsdp2"):
        refuse(
            config,
            f"{_ACTOR}.strategy",
            "hidden states are pooled in the FSDP engine's log-prob forward, and other engines spread the layers of one "
            "completion over ranks; set it to fsdp2",
        )
    _check_sequence_parallel(config)
    if not setting(config, "trainer.use_v1", True):
        refuse(config, "trainer.use_v1", "the legacy trainer is not supported; set it to True")
    if setting(config, "algorithm.adv_estimator") in _NOT_BY_PROMPT:
        refuse(
            config,
            "algorithm.adv_estimator",
            "a completion must be compared with the other completions of its prompt alone, or speech would be measured "
            "against text; set it to grpo (the paper's)",
        )
    manager = tuple(setting(config, f"reward.reward_manager.{key}") for key in _MANAGER)
    if manager != tuple(_MANAGER.values()) and manager[:2] != ("register", "naive"):
        refuse(config, "reward.reward_manager.name", _OWN_BASE)
    for key in ("data.train_batch_size", "data.gen_batch_size"):
        if setting(config, key, 2) % 2:
            refuse(config, key, "a batch counts prompts, two for a pair; set it to an even number")
    if setting(config, "actor_rollout_ref.rollout.n", 1) < 2:
        refuse(
            config,
            "actor_rollout_ref.rollout.n",
            "advantages are relative to the other completions of the same prompt; set it to 2 or more (the paper: 4)",
        )
    audio.check_config(config)


def _check_sequence_parallel(config: DictConfig) -> None:
    """Refuse an attention under which the ranks that share a sequence would not see each other's tokens."""
    sizes = (f"{_ACTOR}.ulysses_sequence_parallel_size", f"{_ACTOR}.fsdp_config.ulysses_sequence_parallel_size")
    key = "actor_rollout_ref.model.override_config.attn_implementation"
    # What verl takes where nothing is set.
    attention = setting(config, key, "flash_attention_2")
    if any(setting(config, size, 1) > 1 for size in sizes) and "flash" not in attention:
        refuse(
            config,
            key,
            "with ulysses_sequence_parallel_size above 1 verl exchanges tokens between ranks around flash attention alone, "
            "and by any other a rank's tokens would attend to its own part of a completion only; set it to "
            "flash_attention_2 (on CPU cores: flash_attention_cpu)",
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
    """Fill in what TARS needs; what the user has set stays. Safe to call twice.

    Raises:
        ConfigError: The run log cannot be written.
    """
    with open_dict(config):
        for key, value in _MANAGER.items():
            OmegaConf.update(config, f"reward.reward_manager.{key}", value)
        # The guard against lost weight pushes and silenced audio compares vLLM's log-probs with the actor's.
        rollout = config.actor_rollout_ref.rollout
        rollout.calculate_log_probs = True
        kwargs = config.reward.custom_kwargs
        # verl's own place for settings of extensions: it reaches the training workers, reward.custom_kwargs does not.
        deadline = kwargs.get("weight_push_deadline", VerlOptions.weight_push_deadline)
        rollout.custom = {**(rollout.get("custom") or {}), WEIGHT_PUSH_DEADLINE: deadline}
        run_log = VerlOptions(run_log=kwargs.get("run_log")).run_log
        if run_log is not None:
            # Absolute, since the trainer's process may have another working directory.
            kwargs.run_log = prepare_directory(run_log)
        model = config.actor_rollout_ref.model
        libraries = model.get("external_lib")
        if libraries is None:
            model.external_lib = WORKER_LIBRARY
        else:
            names = list(libraries) if isinstance(libraries, list | ListConfig) else [libraries]
            if WORKER_LIBRARY not in names:
                model.external_lib = [*names, WORKER_LIBRARY]
    audio.prepare_config(config)


def compute_dtypes(config: DictConfig) -> tuple[str, str]:
    """Dtypes that the rollout engine and the actor compute in."""
    # What verl's FSDP engines take where nothing is set.
    actor = setting(config, f"{_ACTOR}.fsdp_config.mixed_precision.param_dtype", "bf16")
    # verl rounds the weights to bfloat16 when it merges a LoRA adapter into them for a push.
    merged = setting(config, "actor_rollout_ref.model.lora.merge", False)
    rollout = "bfloat16" if merged else setting(config, "actor_rollout_ref.rollout.dtype", "bfloat16")
    return str(rollout), str(actor)
