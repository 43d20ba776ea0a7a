"""Capture without its forward: pooling against one sum over the same bytes, the reward's error, and memory.

Times are CPU time of one thread. Memory is what torch's allocator says, so that a tensor held from Python, by a view or
inside torch is counted alike.
"""

import statistics
import time
from functools import partial

import pytest
import torch
from results import record
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2Config, Qwen2ForCausalLM

from tars_rewards.capture import capture_hidden_states
from tars_rewards.similarity import cosine

LAYERS, HIDDEN, BATCH, PROMPT, COMPLETION = 24, 896, 8, 128, 256
ROUNDS = 21

pytestmark = pytest.mark.benchmark(group="capture", timer=time.thread_time, disable_gc=True, warmup=False)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


class Replay(nn.Module):
    """A decoder whose layers put out states that were there before: a forward that takes no time."""

    class Layer(nn.Module):
        def __init__(self, states) -> None:
            super().__init__()
            self.states = states

        def forward(self):
            return self.states

    def __init__(self, states) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(1, 1)
        self.layers = nn.ModuleList(self.Layer(layer) for layer in states)

    def forward(self):
        for layer in self.layers:
            layer()


def pooled(model, mask):
    with capture_hidden_states(model, mask) as captured:
        model()
    return captured.pooled


def timed(function) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_pooling_against_one_sum_over_the_same_bytes(benchmark, dtype, request):
    """The floor: each layer's completion tokens, side by side in memory, summed once. Entering and leaving count."""
    ratios, details = {}, {}
    for completion, layers in ((COMPLETION, LAYERS), (16 * COMPLETION, 2)):
        states = torch.randn(layers, BATCH, PROMPT + completion, HIDDEN).to(dtype)
        model, mask = Replay(states), (torch.arange(PROMPT + completion) >= PROMPT).expand(BATCH, -1)
        tokens = states[:, :, PROMPT:].contiguous()
        floor, spent = [], []
        for _ in range(ROUNDS):
            floor.append(timed(lambda tokens=tokens: [layer.sum() for layer in tokens]))
            spent.append(timed(lambda model=model, mask=mask: pooled(model, mask)))
        ratios[completion] = statistics.median(ours / least for ours, least in zip(spent, floor, strict=True))
        details[f"{completion}_tokens"] = {
            "ratio": round(ratios[completion], 3),
            "one_sum_ms": round(1e3 * statistics.median(floor), 3),
            "gb_per_s": round(tokens.nbytes / statistics.median(floor) / 1e9, 2),
        }
    benchmark.pedantic(lambda: pooled(model, mask), rounds=1)
    print(f"\npooling against one sum, {dtype}: {details}")
    worst = max(ratios.values())
    assert record(f"capture/pooling/{request.node.callspec.id}", worst, rounds=ROUNDS, details=details)


def massive(dtype, completion, seed):
    """States as decoders have them: a few dimensions thousands of times larger than the rest, and alike everywhere."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(LAYERS, 1, 1, HIDDEN, generator=generator)
    common[..., [3, 138, 650]] = torch.tensor([-3.0e3, 1.2e3, 250.0])
    states = torch.randn(LAYERS, BATCH, completion, HIDDEN, generator=generator)
    states[..., [3, 138, 650]] *= common[..., [3, 138, 650]].abs() / 20
    return (common + states + torch.randn(LAYERS, BATCH, 1, HIDDEN, generator=generator) / 3).to(dtype)


def test_error_against_float64(benchmark):
    details, worst = {}, {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        errors = []
        for seed, completion in enumerate((16, 256, 256, 1024, 4096)):
            states = massive(dtype, completion, seed)
            mask = torch.ones(BATCH, completion, dtype=torch.bool)
            got = pooled(Replay(states), mask)
            reward = cosine(got[: BATCH // 2], got[BATCH // 2 :])[0].mean(-1)
            exact = torch.stack([layer.double().mean(1) for layer in states], dim=1)
            halves = exact[: BATCH // 2], exact[BATCH // 2 :]
            expected = nn.functional.cosine_similarity(*halves, dim=-1).mean(-1)
            errors.append((reward.double() - expected).abs().max().item())
        worst[dtype] = max(errors)
        details[str(dtype).removeprefix("torch.")] = errors
    benchmark.pedantic(lambda: pooled(Replay(states), mask), rounds=1)
    print(f"\nerror of the reward: {details}")
    assert record("capture/error", worst[torch.float32], rounds=5, details=details)
    assert max(worst.values()) <= 1e-6, "half precision is pooled in float32, and the states themselves are given"


class Allocations:
    """What torch's CPU allocator handed out and took back inside the context."""

    def __enter__(self):
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *args):
        self._profile.__exit__(*args)
        events = [event for event in self._profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        events.sort(key=lambda event: event.start_ns())
        self.kept = self.peak = 0
        for event in events:
            self.kept += event.nbytes()
            self.peak = max(self.peak, self.kept)


def _keep(kept, _module, _inputs, output):
    kept.append(output[:, -1:])


def test_memory(benchmark):
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 1024}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2}
    whole = BATCH * 4 * HIDDEN * 4  # float32 [batch, layers, hidden]
    details, ratios = {"bytes_of_batch_layers_hidden": whole}, []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval().to(dtype)
        ids = torch.randint(3, 1024, (BATCH, PROMPT + COMPLETION))
        mask = (torch.arange(PROMPT + COMPLETION) >= PROMPT).repeat(BATCH, 1)
        mask[0, -9:-5] = False  # one row in two pieces
        states_bytes = ids.numel() * HIDDEN * dtype.itemsize

        def forward(model=model, ids=ids):
            model(ids, use_cache=False)

        def captured_forward(model=model, ids=ids, mask=mask):
            with capture_hidden_states(model, mask) as captured:
                forward(model, ids)
            return captured

        captured_forward()
        with Allocations() as plain:
            forward()
        captured = None  # what an earlier round kept must not be given back inside
        with Allocations() as with_capture:
            captured = captured_forward()
        with Allocations() as inside, capture_hidden_states(model, mask):
            forward()
            inside.__exit__(None, None, None)
        ratios += [(with_capture.kept - captured.valid.nbytes) / whole]
        details[str(dtype).removeprefix("torch.")] = {
            "kept": with_capture.kept,
            "of_which_valid": captured.valid.nbytes,
            "plain_kept": plain.kept,
            "peak_above_plain": with_capture.peak - plain.peak,
            "states_of_one_layer": states_bytes,
        }
        assert plain.kept == 0
        assert with_capture.kept >= whole, "else the tracker would not see what is kept"
        assert with_capture.peak - plain.peak <= 2 * whole + 2**20 + 4096, "sums, and the float32 copy of a piece"

        # The tracker notices one layer's states, even held by a view of a single token.
        captured, leaked = None, []
        handle = model.model.layers[1].register_forward_hook(partial(_keep, leaked))
        with Allocations() as leaking:
            captured = captured_forward()
        handle.remove()
        assert leaking.kept >= states_bytes + whole
    print(f"\nmemory: {details}")
    benchmark.pedantic(captured_forward, rounds=1)
    assert record("capture/memory", max(ratios), rounds=len(ratios), details=details)
