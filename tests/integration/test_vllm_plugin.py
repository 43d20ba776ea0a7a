"""What is put in place in a vLLM process."""

import types

import pytest
import torch

from tars_rewards.errors import AdapterError
from tars_rewards.integration import vllm_plugin


@pytest.mark.parametrize(("name", "value", "asked"), [
    ("VERL_PLATFORM", "cpu", True), ("TARS_OPENRLHF_PLATFORM", " CPU ", True), ("VERL_PLATFORM", "nvidia", False),
    ("OTHER", "cpu", False),
])  # fmt: skip
def test_weights_stay_plain_only_where_a_run_without_a_gpu_was_asked_for(monkeypatch, name, value, asked):
    patched = []
    monkeypatch.setattr(vllm_plugin, "after_import", lambda module, patch: patched.append(module))
    for switch in vllm_plugin.CPU_SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setenv(name, value)
    vllm_plugin.register()
    assert patched == (["vllm.model_executor.layers.utils"] if asked else [])


def test_plain_gemm_keeps_the_weight_where_a_push_can_reach_it():
    def dispatch_cpu_unquantized_gemm(layer, remove_weight):
        layer.weight = None

    module = types.ModuleType("utils")
    module.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm
    vllm_plugin._plain_gemm(module)
    layer = torch.nn.Linear(3, 2)
    module.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    x = torch.randn(4, 3)
    with torch.no_grad():
        layer.weight.mul_(2)  # a push
    assert torch.equal(layer.cpu_linear(x, layer.weight, layer.bias), layer(x))


def test_plain_gemm_refuses_another_vllm():
    module = types.ModuleType("utils")
    module.dispatch_cpu_unquantized_gemm = lambda layer: None
    with pytest.raises(AdapterError, match=r"to take \(layer, remove_weight\), it takes \(layer\)"):
        vllm_plugin._plain_gemm(module)
