"""vLLM's Ray actor with the executor of TARS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import openrlhf.trainer.ray.vllm_engine as stock
import ray

from tars_rewards.config import TARSConfig
from tars_rewards.reward import TARSReward
from tars_rewards.speech.checkpoint import checkpoint_family
from tars_rewards_openrlhf.stock import plain_class

if TYPE_CHECKING:

    class _Base:
        """``RolloutRayActor``, which is not typed."""

        executor: Any
        llm: Any

        async def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # type: ignore[misc]  # as Ray allows

        async def update_weight(self, *args: Any) -> Any: ...

        async def update_weight_cuda_ipc(self, *args: Any) -> Any: ...
else:
    _Base = plain_class(stock, "RolloutRayActor")


@dataclass(frozen=True)
class EngineSettings:
    """What the actor must know of the run, which OpenRLHF does not hand on to it."""

    config: TARSConfig
    endpoints: Sequence[str] | None  #: the user's reward function or servers; None: accuracy and format
    engine: tuple[tuple[str, Any], ...] = ()  #: further arguments of vLLM's engine, as a run on CPU cores needs


class RolloutActor(_Base):
    """``RolloutRayActor`` that reports the log-probs it sampled by, and hears."""

    settings: ClassVar[EngineSettings]

    async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]  # as Ray allows
        family = checkpoint_family(kwargs["model"])
        # The guard against lost weight pushes and silenced audio compares vLLM's log-probs with the actor's.
        kwargs |= {"logprobs_mode": "processed_logprobs", "max_logprobs": 1, "remote_rm_url": None}
        kwargs |= dict(self.settings.engine)
        processor = None
        if family is not None:
            from tars_rewards.speech.processors import load_processor

            processor = load_processor(kwargs["model"], family)
            unused = {name: 0 for name in ("image", "video") if f"{name}_token" in family.reserved}
            if unused:
                # vLLM then neither builds a vision tower nor reserves memory for what could go through it.
                kwargs.setdefault("limit_mm_per_prompt", unused)
        await super().__init__(*args, **kwargs)

        from tars_rewards_openrlhf.executor import TARSExecutor

        reward = TARSReward(self.settings.config)
        self.executor = TARSExecutor(reward, processor=processor, endpoints=self.settings.endpoints)

    async def update_weight(self, name: str, dtype: Any, shape: Any, empty_cache: bool = False) -> Any:
        """Stock; after the last weight of a push, what was encoded by the old ones is forgotten."""
        result = await super().update_weight(name, dtype, shape, empty_cache)
        if empty_cache:
            await self.llm.reset_encoder_cache()
        return result

    async def update_weight_cuda_ipc(
        self, name: str, dtype: Any, shape: Any, ipc_handles: Any, empty_cache: bool = False
    ) -> Any:
        """Stock; see `update_weight`."""
        result = await super().update_weight_cuda_ipc(name, dtype, shape, ipc_handles, empty_cache)
        if empty_cache:
            await self.llm.reset_encoder_cache()
        return result


def rollout_actor(settings: EngineSettings) -> Any:
    """Ray actor class of `RolloutActor` for a run. Made here, it travels to the workers with its settings."""
    return ray.remote(type("TARSRolloutRayActor", (RolloutActor,), {"settings": settings}))
