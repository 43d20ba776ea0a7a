"""``python -m tars_rewards.openrlhf``: OpenRLHF's ``train_ppo_ray`` with TARS and its flags."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from tars_rewards.integration.patching import replace
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.flags import PREFIX, add_flags, read_flags
from tars_rewards_openrlhf.settings import OUR_REWARD, check_args, prepare_args
from tars_rewards_openrlhf.stock import require_openrlhf

PROGRAM = "openrlhf.cli.train_ppo_ray"
_MARK = "--actor.model_name_or_path"


def main(argv: Sequence[str] | None = None, *, trainer: type | None = None) -> None:
    """Run the stock program with TARS in place.

    Args:
        argv: Its flags and ours; None: those of the command line.
        trainer: A class derived from `tars_rewards_openrlhf.trainer.TARSPPOTrainer`, in a module that Ray's workers can
            import.

    Raises:
        AdapterError: OpenRLHF is another version than the tested ones.
        UnsupportedConfigError: A flag's value excludes TARS.
        ConfigError: A ``--tars.*`` flag has a bad value.
    """
    require_openrlhf()
    if cpu.active():
        cpu.install()
    install_actors()
    stock_parse: Any = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        if _MARK not in self._option_string_actions:
            return stock_parse(self, *args, **kwargs)  # the parser of some other module
        replace(argparse.ArgumentParser, "parse_args", stock_parse)
        add_flags(self)
        parsed = self.parse_args(*args, **kwargs)
        check_args(parsed)
        prepare_args(parsed)
        install(parsed, trainer)
        return parsed

    replace(argparse.ArgumentParser, "parse_args", parse_args)
    sys.argv = ["python -m tars_rewards.openrlhf", *(sys.argv[1:] if argv is None else argv)]
    try:
        runpy.run_module(PROGRAM, run_name="__main__", alter_sys=False)
    finally:
        replace(argparse.ArgumentParser, "parse_args", stock_parse)


def install_actors() -> None:
    """Put the policy's and the reference's actors in place, which the stock program imports before it reads its flags."""
    import openrlhf.trainer.ray.launcher as stock_launcher
    import openrlhf.trainer.ray.ppo_actor as stock_policy
    import ray

    from tars_rewards_openrlhf.policy import PolicyActor, ReferenceActor

    replace(stock_policy, "PolicyModelActor", ray.remote(num_gpus=1)(PolicyActor))
    replace(stock_launcher, "ReferenceModelActor", ray.remote(num_gpus=1)(ReferenceActor))


def install(args: argparse.Namespace, trainer: type | None = None) -> None:
    """Put the engine's actor and the trainer in place, which depend on the flags.

    Args:
        args: The parsed flags, with dots in their names.
        trainer: See `main`.
    """
    import openrlhf.trainer.ppo_trainer as stock_trainer
    import openrlhf.trainer.ray.vllm_engine as stock_engine
    import ray

    from tars_rewards_openrlhf.engine import EngineSettings, rollout_actor
    from tars_rewards_openrlhf.trainer import TARSPPOTrainer

    config, _ = read_flags(tars_settings(args))
    url = getattr(args, "reward.remote_url")
    endpoints = None if url == OUR_REWARD else url.split(",")
    engine = cpu.ENGINE if cpu.active() else ()
    replace(stock_engine, "RolloutRayActor", rollout_actor(EngineSettings(config, endpoints, engine)))
    replace(stock_trainer, "PPOTrainer", ray.remote(trainer or TARSPPOTrainer))
    if cpu.active():
        cpu.start_ray()


def tars_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Values of the ``--tars.*`` flags by name without the prefix."""
    return {name.removeprefix(PREFIX): value for name, value in vars(args).items() if name.startswith(PREFIX)}
