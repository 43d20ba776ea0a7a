"""Try it without a GPU: what stock OpenRLHF and vLLM need to run a whole training on CPU cores.

OpenRLHF asks CUDA, NCCL and flash-attn by name. This package stands in for those leaves, in processes that have
``TARS_OPENRLHF_PLATFORM=cpu`` in their environment and in no others; data, rollouts, losses, DeepSpeed, Ray and vLLM are the
real ones. It is meant for tests, demos and debugging, not for training models of a useful size. Flags that go with it:
``--ds.attn_implementation sdpa --vllm.enforce_eager --vllm.sync_backend gloo``.
"""

from __future__ import annotations

import os
from typing import Any

SWITCH = "TARS_OPENRLHF_PLATFORM"
"""Environment variable that asks for it."""
ENGINE: tuple[tuple[str, Any], ...] = (
    ("worker_extension_cls", "tars_rewards_openrlhf.cpu.worker.CPUWorker"),
    ("kv_cache_memory_bytes", 64 * 2**20),
)
"""Arguments of vLLM's engine."""
_ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less per engine
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
}


def active() -> bool:
    """Whether this process was asked to run OpenRLHF on CPU cores."""
    return os.environ.get(SWITCH, "").strip().lower() == "cpu"


def install() -> None:
    """Put the stand-ins in place, in the driver and in every one of Ray's workers."""
    from tars_rewards_openrlhf.cpu import flash_attention, leaves

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    leaves.install()
    flash_attention.install()


def start_ray() -> None:
    """Start Ray with slots for OpenRLHF's actors, which ask for GPUs; they take turns on the real cores."""
    import ray

    if ray.is_initialized():
        return
    ray.init(
        address="local",
        num_cpus=8,  # slots; Ray starts as many workers in advance
        num_gpus=8,
        include_dashboard=False,
        object_store_memory=300_000_000,
        _temp_dir=os.environ.get("RAY_TMPDIR"),
        runtime_env={
            "env_vars": {SWITCH: "cpu", **{name: os.environ[name] for name in _ENVIRONMENT}},
            "worker_process_setup_hook": "tars_rewards_openrlhf.cpu.install",
        },
    )
