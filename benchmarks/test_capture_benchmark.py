"""What capture costs, as a share of the forward it rides on, and what the same information costs otherwise.

Added work is timed where it is done (entering, inside the hooks, leaving) and not as a difference of two forwards,
which is noise many times larger. All times are CPU time of one thread: other work on the machine does not count.
"""

import statistics
import time

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tars_rewards import capture
from tars_rewards.capture import capture_hidden_states

LAYERS, HIDDEN, BATCH, PROMPT, COMPLETION = 12, 512, 8, 128, 256
TOKENS = PROMPT + COMPLETION
ROUNDS = 3
MAX_SHARE = 0.003
MIN_TIMES_CHEAPER, MIN_TIMES_SMALLER = 200, 200
MAX_TIMES_ONE_SUM = {torch.float32: 2.5, torch.bfloat16: 4.0}

pytestmark = pytest.mark.benchmark(group="capture", timer=time.thread_time, disable_gc=True, warmup=False)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.fixture
def mask():
    return (torch.arange(TOKENS) >= PROMPT).expand(BATCH, TOKENS)


def timed(function) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def pool_all_layers(states, mask):
    """What a forward with these layer outputs adds, without the forward."""
    pooling = capture._Pooling(mask, None, LAYERS)
    for layer in range(LAYERS):
        pooling.hook(layer, None, (), states[layer])
    return pooling.means()


def test_share_of_the_forward_and_the_same_by_an_additional_forward(benchmark, mask, monkeypatch):
    torch.manual_seed(0)
    sizes = dict(hidden_size=HIDDEN, intermediate_size=1408, num_hidden_layers=LAYERS, vocab_size=4096)
    heads = dict(num_attention_heads=8, num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval()
    ids = torch.randint(3, 4096, (BATCH, TOKENS))
    added, additional, half, floor, kept, pooled = [], [], [], [], {}, {}
    hook = capture._Pooling.hook
    monkeypatch.setattr(capture._Pooling, "hook", lambda *args: added.append(timed(lambda: hook(*args))))

    def read_once():
        """A forward whose layers' outputs are read once as they leave, and nothing more."""
        spent = []

        def read(module, inputs, output):
            states = output[0] if isinstance(output, tuple) else output
            spent.append(timed(lambda: states[:, PROMPT:].sum()))

        handles = [layer.register_forward_hook(read) for layer in model.model.layers]
        model(ids, use_cache=False)
        for handle in handles:
            handle.remove()
        floor.append(sum(spent))

    def by_an_additional_forward():
        """A forward of its own that keeps every layer's states, pooled in a loop, as the authors' code does it."""
        start = time.thread_time()
        states = model(ids, use_cache=False, output_hidden_states=True).hidden_states
        means = [torch.stack([s[row, PROMPT:].mean(0) for row in range(BATCH)]) for s in states[1:]]
        pooled["additional"] = torch.stack(means, dim=1)
        additional.append(time.thread_time() - start)
        kept["additional"] = sum(s.nbytes for s in states)
        # A CPU without bfloat16 units is so slow in it that capture would look free: against float32 it must not.
        in_half = [s.bfloat16() for s in states[1:]]
        half.append(timed(lambda: pool_all_layers(in_half, mask)))
        read_once()
        added.clear()

    seconds = []

    def captured_forward():
        start = time.thread_time()
        with capture_hidden_states(model, mask) as captured:
            entered = time.thread_time()
            model(ids, use_cache=False)
            left = time.thread_time()
        seconds.append(sum(added) + time.thread_time() - left + entered - start)
        assert len(added) == LAYERS
        kept["captured"], pooled["captured"] = captured.pooled.nbytes, captured.pooled

    benchmark.pedantic(captured_forward, setup=by_an_additional_forward, rounds=ROUNDS)
    all_but_last = [pooled[way][:, :-1] for way in ("captured", "additional")]  # the last differ by the final norm
    torch.testing.assert_close(*all_but_last, rtol=0, atol=1e-5)

    forward = benchmark.stats.stats.median - statistics.median(seconds)
    share, least = statistics.median(seconds) / forward, statistics.median(floor) / forward
    times_cheaper = statistics.median(additional) / statistics.median(seconds)
    times_smaller = kept["additional"] / kept["captured"]
    benchmark.extra_info.update(
        share_percent=round(100 * share, 3),
        share_percent_of_reading_once=round(100 * least, 3),
        share_percent_bf16=round(100 * statistics.median(half) / forward, 3),
        additional_forward_percent=round(100 * statistics.median(additional) / forward),
        times_cheaper=round(times_cheaper),
        times_smaller=round(times_smaller),
        megabytes_kept=round(kept["captured"] / 1e6, 2),
        megabytes_kept_by_the_additional_forward=round(kept["additional"] / 1e6, 2),
    )
    print(f"\nshare of the forward: {benchmark.extra_info}")
    assert share <= MAX_SHARE
    assert statistics.median(half) / forward <= MAX_SHARE
    assert times_cheaper >= MIN_TIMES_CHEAPER
    assert times_smaller >= MIN_TIMES_SMALLER


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_pooling_against_one_sum_over_the_same_bytes(benchmark, mask, dtype):
    """The floor: reading the completion's states once."""
    states = torch.randn(LAYERS, BATCH, TOKENS, HIDDEN).to(dtype)
    completion = states[:, :, PROMPT:].contiguous()
    floor = []
    benchmark.pedantic(
        lambda: pool_all_layers(states, mask),
        setup=lambda: floor.append(timed(lambda: [layer.sum() for layer in completion])),
        rounds=41,
    )
    ratio = benchmark.stats.stats.median / statistics.median(floor)
    benchmark.extra_info["times_one_sum"] = round(ratio, 2)
    print(f"\npooling against one sum, {dtype}: {ratio:.2f}")
    assert ratio <= MAX_TIMES_ONE_SUM[dtype]
