"""TARS in OpenRLHF: ``python -m tars_rewards.openrlhf <flags of train_ppo_ray> --tars.alpha 1.0 …``."""

from importlib.util import find_spec

if find_spec("openrlhf") is None:
    raise ModuleNotFoundError(
        "tars_rewards.openrlhf needs the module openrlhf, which is not installed; pip install 'tars-rewards[openrlhf]'",
        name="openrlhf",
    )

from tars_rewards_openrlhf.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
