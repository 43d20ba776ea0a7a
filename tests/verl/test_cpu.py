"""verl on CPU cores: what is put in place when asked for, and that nothing is otherwise."""

import os
import subprocess
import sys

import pytest

from tars_rewards_verl import cpu

# Processes of their own: the platform is chosen once per process.
WITH = """
import verl, torch, importlib.metadata
from verl.plugin.platform import get_platform
from verl.utils.device import get_device_name, get_torch_device
platform = get_platform()
assert get_device_name() == "cpu" and type(platform).__name__ == "PlatformCPU"
assert platform.ray_resource_name() == "GPU" and not platform.is_ipc_supported()
device = get_torch_device()
assert device.max_memory_allocated() == 0 and device.get_device_name() == "CPU"
free, total = device.mem_get_info()
assert 0 < free <= total
assert torch.zeros(1).to(platform.current_device()).device.type == "cpu"
try:
    device.some_new_call
except AttributeError as error:
    assert "torch.<device>.some_new_call" in str(error)
else:
    raise AssertionError
import verl.third_party.vllm as found
assert found.vllm_version.endswith("+cpu"), found.vllm_version
torch.distributed.init_process_group("cpu:gloo,cpu:gloo", init_method="tcp://127.0.0.1:{port}", rank=0, world_size=1)
assert torch.distributed.get_backend() == "gloo"
import verl.workers.engine.fsdp.transformer_impl as engine
from verl.workers.engine.base import EngineRegistry
for backend in ("fsdp", "fsdp2"):
    assert issubclass(EngineRegistry.get_engine_cls("language_model", backend), engine.FSDPEngineWithLMHead)
assert engine.CPUOffloadPolicy(pin_memory=True) is None
print("fine")
"""
WITHOUT = """
import importlib.metadata
before = importlib.metadata.version
import verl, torch
from verl.plugin.platform import PlatformRegistry
import tars_rewards_verl.plugin
assert importlib.metadata.version is before
assert "cpu" not in PlatformRegistry.registered_names()
import verl.workers.engine.fsdp.transformer_impl as engine
from verl.workers.engine.base import EngineRegistry
assert "cpu" not in EngineRegistry._engines["language_model"]["fsdp2"]
assert torch.distributed.init_process_group.__module__ == "torch.distributed.distributed_c10d"
print("fine")
"""


def run(code, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_verl_runs_on_cpu_cores_when_asked():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = run(WITH.replace("{port}", str(port)), VERL_PLATFORM="cpu", VLLM_CPU_OMP_THREADS_BIND="nobind")
    assert done.stdout.endswith("fine\n"), done.stderr[-3000:]


@pytest.mark.slow
def test_nothing_is_changed_when_not_asked():
    done = run(WITHOUT)
    assert done.stdout.endswith("fine\n"), done.stderr[-3000:]


@pytest.mark.parametrize(("value", "active"), [("cpu", True), (" CPU ", True), ("nvidia", False), ("", False)])
def test_active_reads_verls_variable(monkeypatch, value, active):
    monkeypatch.setenv("VERL_PLATFORM", value)
    assert cpu.active() is active


@pytest.mark.slow
def test_a_failing_plugin_is_seen_although_verl_swallows_its_error(tmp_path):
    """verl logs errors of its plugins at DEBUG level only."""
    broken = "import tars_rewards_verl.audio as audio\naudio.install = lambda: 1 / 0\nimport verl\nprint('went on')"
    done = run(broken)
    assert "went on" in done.stdout
    assert "tars-rewards: could not be installed in this process" in done.stderr
    assert "ZeroDivisionError" in done.stderr
