"""``python stock.py <flags>``: OpenRLHF's own ``train_ppo_ray`` without TARS, on CPU cores."""

import runpy
import sys

from tars_rewards_openrlhf import cpu

if cpu.active():
    cpu.install()  # OpenRLHF is imported below

import openrlhf.trainer.ray.vllm_engine as stock_engine
import ray

from tars_rewards_openrlhf.stock import plain_class


class RolloutActor(plain_class(stock_engine, "RolloutRayActor")):
    """Stock, but for what vLLM needs on CPU cores."""

    async def __init__(self, *args, **kwargs):
        await super().__init__(*args, **(kwargs | dict(cpu.ENGINE)))


if __name__ == "__main__":
    stock_engine.RolloutRayActor = ray.remote(RolloutActor)
    cpu.start_ray()
    sys.argv = ["train_ppo_ray", *sys.argv[1:]]
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=False)
