"""A vLLM worker that receives weights and drops them."""

import torch

from tars_rewards_openrlhf.cpu.worker import CPUWorker


class StaleWorker(CPUWorker):
    def update_weight(self, name, dtype, shape, empty_cache=False):
        self._model_update_group.broadcast(torch.empty(shape, dtype=dtype), src=0)
