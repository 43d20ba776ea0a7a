"""Public door to the verl adapter: ``reward.custom=tars_rewards.verl:TARSReward``."""

from importlib.util import find_spec

for _module in ("verl", "transfer_queue"):
    if find_spec(_module) is None:
        raise ModuleNotFoundError(
            f"tars_rewards.verl needs the module {_module}, which is not installed; pip install 'tars-rewards[verl]'",
            name=_module,
        )

from tars_rewards_verl.reward import TARSReward  # noqa: E402  (the sentence above comes first)

__all__ = ["TARSReward"]
