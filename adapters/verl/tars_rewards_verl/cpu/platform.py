"""The CPU as a verl platform: registration, process group backend, training engine."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from tars_rewards.integration.patching import after_import, replace, require_attribute

_DUPLICATE_BACKEND = "cpu:gloo,cpu:gloo"


class _DeviceModule(ModuleType):
    """Stands for ``torch.cuda`` behind verl's ``get_torch_device()``: ``torch.cpu``, and neutral answers."""

    def __init__(self) -> None:
        super().__init__("tars_rewards_verl.cpu.device")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(torch.cpu, name):
            return getattr(torch.cpu, name)
        if name in _NEUTRAL:
            return _NEUTRAL[name]
        raise AttributeError(
            f"verl asked for torch.<device>.{name}, which the CPU platform of tars-rewards does not stand in for"
        )


def _memory_info(*_: Any) -> tuple[int, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


_NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(
        ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"), lambda *_, **__: 0
    ),
    **dict.fromkeys(
        ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "set_device", "set_rng_state", "synchronize"),
        lambda *_, **__: None,
    ),
    **dict.fromkeys(("manual_seed", "manual_seed_all"), torch.manual_seed),
    "get_device_name": lambda *_: "CPU",
    "get_rng_state": torch.get_rng_state,
    "mem_get_info": _memory_info,
}
_DEVICE_MODULE = _DeviceModule()


class PlatformCPU(PlatformBase):
    """CPU cores as verl's accelerator."""

    device_name = "cpu"
    vendor_name = "generic"
    device_module = _DEVICE_MODULE

    def is_available(self) -> bool:
        """There is always a CPU."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """False: the CPU is used when asked for, never found by probing."""
        return False

    def current_device(self) -> Any:
        """``"cpu"``: verl moves tensors to what this returns."""
        return "cpu"

    def device_count(self) -> int:
        """One device per process."""
        return 1

    def set_device(self, device_index: int) -> None:
        """There is nothing to select."""

    def synchronize(self, device_index: int | None = None) -> None:
        """CPU work is synchronous."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """The CPU's allocator has none."""

    def empty_cache(self) -> None:
        """There is no cache."""

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        """None."""
        return None, None

    def communication_backend_name(self) -> str:
        """Gloo."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """A name that verl may set; nothing reads it."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No ranges."""
        yield

    def profiler_start(self) -> None:
        """No profiler."""

    def profiler_stop(self) -> None:
        """No profiler."""

    def ray_resource_name(self) -> str:
        """``GPU``: verl counts no other resource, so Ray is told of as many "GPUs" as there are training processes."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """None."""
        return []

    def is_ipc_supported(self) -> bool:
        """False: weights go to vLLM through shared memory."""
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        """Settings of vLLM's CPU build: no core binding, and the engine inside the server process to save memory."""
        defaults = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        return {name: os.environ.get(name, value) for name, value in defaults.items()}

    def cudart(self) -> None:
        """None."""


def install() -> None:
    """Register the platform and arrange for the process group and the training engine."""
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
    after_import("torch.distributed", _one_gloo)
    after_import("verl.workers.engine.fsdp.transformer_impl", _register_engine)


def _one_gloo(module: ModuleType) -> None:
    """Verl asks for a CPU backend beside the accelerator's; here they are one, and torch refuses to be told twice."""
    stock = module.init_process_group

    @functools.wraps(stock)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return stock("gloo" if backend == _DUPLICATE_BACKEND else backend, *args, **kwargs)

    replace(module, "init_process_group", init_process_group)


def _register_engine(module: ModuleType) -> None:
    """The stock FSDP engines, under the device they were not registered for; frozen reference weights not pinned."""
    from verl.workers.engine.base import EngineRegistry

    for model_type, backends in require_attribute(EngineRegistry, "_engines", "verl EngineRegistry").items():
        for backend in ("fsdp", "fsdp2"):
            engines = backends.get(backend, {})
            if "cuda" in engines and "cpu" not in engines:
                EngineRegistry.register(model_type, backend, device="cpu")(engines["cuda"])
    # A reference policy is kept in pinned host memory, which needs an accelerator; it is in host memory already.
    replace(module, "CPUOffloadPolicy", lambda pin_memory=True: None)
