"""Capture through what a trainer wraps around a model: LoRA, DDP, FSDP2 and torch.compile."""

import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import Qwen2Config, Qwen2ForCausalLM

from tars_rewards.capture import capture_hidden_states
from tars_rewards.errors import CaptureError

IDS = torch.arange(1, 25).reshape(3, 8)
MASK = torch.arange(8).expand(3, 8) >= torch.tensor([[3], [5], [2]])


def tiny_qwen2() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, vocab_size=50, initializer_range=0.2)
    heads = dict(num_attention_heads=2, num_key_value_heads=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval()


def pooled(model) -> torch.Tensor:
    with torch.no_grad(), capture_hidden_states(model, MASK) as captured:
        model(IDS, use_cache=False)
    return captured.pooled


@pytest.fixture
def expected() -> torch.Tensor:
    """By a plain forward that keeps all states; the last layer's from a model without its final norm."""
    model = tiny_qwen2()
    model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        states = model(IDS, output_hidden_states=True).hidden_states[1:]
    return torch.stack([torch.stack([s[row][MASK[row]].mean(0) for row in range(3)]) for s in states], dim=1)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_lora(expected):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], modules_to_save=["embed_tokens"])
    model = peft.get_peft_model(tiny_qwen2(), config)
    assert_equal(pooled(model), expected)  # LoRA starts as the identity
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    with model.disable_adapter():
        assert_equal(pooled(model), expected)
    adapted = pooled(model)
    assert (adapted - expected).abs().max() > 0.1, "the adapter must be captured, not the model below it"
    assert_equal(pooled(model.merge_and_unload()), adapted)


@pytest.fixture
def counter():
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


def compiled(how: str, backend) -> torch.nn.Module:
    model = tiny_qwen2()
    if how == "whole":
        return torch.compile(model, backend=backend)
    if how == "whole, in place":
        model.compile(backend=backend)
    elif how == "layers, in place":
        for layer in model.model.layers:
            layer.compile(backend=backend)
    else:
        model.model.layers = torch.nn.ModuleList(torch.compile(layer, backend=backend) for layer in model.model.layers)
    return model


@pytest.mark.parametrize("how", ["whole", "whole, in place", "layers, in place", "layers, wrapped"])
def test_compiled(how, counter, expected):
    model = compiled(how, counter)
    assert_equal(pooled(model), expected)
    with torch.no_grad():
        model(IDS, use_cache=False)
    frames = counter.frame_count
    assert frames > 0
    for _ in range(10):  # a capture a step must not compile a step
        assert_equal(pooled(model), expected)
        with torch.no_grad():
            model(IDS, use_cache=False)
    assert counter.frame_count == frames


@pytest.mark.parametrize("how", ["layers, in place", "layers, wrapped"])
def test_compiled_layer_by_layer_before_the_first_capture(how, counter, expected):
    model = compiled(how, counter)
    with torch.no_grad():
        model(IDS, use_cache=False)
    assert_equal(pooled(model), expected)


def test_one_graph_from_before_the_first_capture_is_refused_and_the_advice_helps(counter, expected):
    model = compiled("whole", counter)
    with torch.no_grad():
        model(IDS, use_cache=False)
    with pytest.raises(CaptureError, match=r"layers \[0, 1, 2\] did not\..*skip_nnmodule_hook_guards = False"):
        pooled(model)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False), torch.no_grad():
        model(IDS, use_cache=False)
        assert_equal(pooled(model), expected)


DISTRIBUTED = """
import sys
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
sys.path.insert(0, {here!r})
from test_capture_wrappers import assert_equal, pooled, tiny_qwen2

torch.distributed.init_process_group("gloo", init_method="file://{store}", rank=0, world_size=1)
expected = pooled(tiny_qwen2())
assert_equal(pooled(torch.nn.parallel.DistributedDataParallel(tiny_qwen2())), expected)

model = tiny_qwen2()
for layer in model.model.layers:
    fully_shard(layer)
fully_shard(model)
assert type(next(model.parameters())).__name__ == "DTensor"
captured = pooled(model)
assert type(captured) is torch.Tensor
assert_equal(captured, expected)

model = tiny_qwen2()
policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
for layer in model.model.layers:
    fully_shard(layer, mp_policy=policy)
fully_shard(model, mp_policy=policy)
captured = pooled(model)
assert captured.dtype == torch.float32
torch.testing.assert_close(captured, expected, rtol=0.05, atol=0.1)
torch.distributed.destroy_process_group()
print("equal")
"""


@pytest.mark.slow
def test_ddp_and_fsdp2(tmp_path, request):
    here = str(request.path.parent)
    script = DISTRIBUTED.format(here=here, store=tmp_path / "store")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("equal"), done.stderr
