"""What vLLM's worker does in a weight push, on CPU cores. vLLM imports it in the engine's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tars_rewards.errors import AdapterError
from tars_rewards_openrlhf.cpu.leaves import GlooBroadcast

if TYPE_CHECKING:

    class WorkerWrap:
        """OpenRLHF's, which is not typed."""

        model_config: Any
        model_runner: Any
else:
    from openrlhf.trainer.ray.vllm_worker_wrap import WorkerWrap


class CPUWorker(WorkerWrap):
    """``WorkerWrap`` whose weights come by gloo into host memory."""

    def init_process_group(
        self,
        master_address: str,
        master_port: int,
        rank_offset: int,
        world_size: int,
        group_name: str,
        backend: str = "gloo",
        use_ray: bool = False,
    ) -> None:
        """Join the group of the pushing rank and the engines."""
        if use_ray:
            raise AdapterError("weights are pushed by gloo on CPU cores; leave --vllm.sync_with_ray out")
        rank = torch.distributed.get_rank() + rank_offset
        self._model_update_group = GlooBroadcast(master_address, master_port, rank, world_size)

    def update_weight(self, name: str, dtype: torch.dtype, shape: Any, empty_cache: bool = False) -> None:
        """Receive a weight and load it."""
        if dtype != self.model_config.dtype:
            raise AdapterError(f"weight {name}: expected {self.model_config.dtype}, got {dtype}")
        weight = torch.empty(shape, dtype=dtype)
        self._model_update_group.broadcast(weight, src=0)
        self.model_runner.model.load_weights(weights=[(name, weight)])
