"""Devices and communication: the CPU and gloo where OpenRLHF says CUDA and NCCL."""

from __future__ import annotations

import functools
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch

from tars_rewards.integration.patching import after_import, check_signature, replace

_TIMEOUT = timedelta(minutes=5)


class _Device(str):
    """The CPU for ``.to()`` and ``device=``; as a number, as in ``f"cuda:{device}"``, the first one."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "0"


class GlooBroadcast:
    """Stands for vLLM's NCCL communicator in weight pushes: a group of the pushing rank and the engines."""

    def __init__(self, host: str, port: int, rank: int, world_size: int) -> None:
        distributed: Any = torch.distributed
        store = distributed.TCPStore(host, port, world_size, rank == 0, timeout=_TIMEOUT)
        self._group: Any = distributed.ProcessGroupGloo(store, rank, world_size, _TIMEOUT)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        """Send from ``src`` to all, in place."""
        options = torch.distributed.BroadcastOptions()
        options.rootRank, options.rootTensor = src, 0
        self._group.broadcast([tensor], options).wait()


def install() -> None:
    """Put the stand-ins in place."""
    device = _Device("cpu")
    replace(torch.cuda, "current_device", lambda: device)
    for name in ("set_device", "synchronize", "current_stream"):
        replace(torch.cuda, name, lambda *_, **__: None)
    after_import("torch.distributed.device_mesh", _mesh_of_cpus)
    after_import("openrlhf.utils.distributed_util", _push_by_gloo)
    after_import("deepspeed.runtime.zero.partition_parameters", _gather_to_the_end)


def _mesh_of_cpus(module: ModuleType) -> None:
    stock = module.init_device_mesh
    if getattr(stock, "of_cpus", False):
        return

    @functools.wraps(stock)
    def init_device_mesh(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return stock("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    init_device_mesh.of_cpus = True  # type: ignore[attr-defined]  # a mark; types of functions have no attributes
    replace(module, "init_device_mesh", init_device_mesh)


def _push_by_gloo(module: ModuleType) -> None:
    name = "stateless_init_process_group"
    expected = "master_address master_port rank world_size device"
    check_signature(getattr(module, name), expected.split(), f"{module.__name__}.{name}")

    def stateless_init_process_group(
        master_address: str, master_port: int, rank: int, world_size: int, device: Any
    ) -> GlooBroadcast:
        return GlooBroadcast(master_address, master_port, rank, world_size)

    replace(module, name, stateless_init_process_group)


def _gather_to_the_end(module: ModuleType) -> None:
    """ZeRO-3 gathers several weights at once and waits for the last of them only.

    NCCL works through them in their order, gloo does not: what is written to a weight, or read from it, meets a gather that
    still goes on. DeepSpeed waits for all of them since pull request 8539; 0.19.6 does not.
    """
    owner, label = module.Init, f"{module.__name__}.Init"
    check_signature(owner._allgather_params_coalesced, ["self", "param_list", "hierarchy", "quantize"], label)
    check_signature(owner._allgather_params_sequential, ["self", "param_list", "hierarchy"], label)

    def gather(self: Any, param_list: list[Any], hierarchy: int = 0, quantize: bool = False) -> None:
        self._allgather_params_sequential(param_list, hierarchy=hierarchy)

    owner._allgather_params_coalesced = gather
