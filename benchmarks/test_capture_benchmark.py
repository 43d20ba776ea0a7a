"""What capture costs, as a share of the forward it rides on, and what the same information costs otherwise.

Added work is timed where it is done (entering, inside the hooks, leaving) and not as a difference of two forwards, which
is noise many times larger. All times are CPU time of one thread: other work on the machine does not count.
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
MAX_SHARE = {torch.float32: 0.003, torch.bfloat16: 0.005}
MIN_TIMES_CHEAPER, MIN_TIMES_SMALLER = 200, 200


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def added(monkeypatch):
    """Seconds spent in each hook call: the list grows as the hooks run."""
    seconds, original = [], capture._Pooling.hook

    def timed(self, *args):
        start = time.thread_time()
        original(self, *args)
        seconds.append(time.thread_time() - start)

    monkeypatch.setattr(capture._Pooling, "hook", timed)
    return seconds


def decoder(dtype: torch.dtype) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = dict(hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=LAYERS, vocab_size=8192)
    heads = dict(num_attention_heads=8, num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).to(dtype).eval()


@pytest.mark.benchmark(group="capture", timer=time.process_time, disable_gc=True, warmup=False)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@torch.no_grad()
def test_share_of_the_forward_and_the_same_by_an_additional_forward(benchmark, added, dtype):
    model = decoder(dtype)
    ids = torch.randint(3, 8192, (BATCH, TOKENS))
    mask = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    mask[:, PROMPT:] = True
    around, additional, kept, pooled = [], [], {}, {}

    def by_an_additional_forward():
        """A forward of its own that keeps every layer's states, pooled in a loop, as the authors' code does it."""
        start = time.process_time()
        states = model(ids, use_cache=False, output_hidden_states=True).hidden_states
        means = [torch.stack([s[row, PROMPT:].mean(0) for row in range(BATCH)]) for s in states[1:]]
        pooled["additional"] = torch.stack(means, dim=1)
        additional.append(time.process_time() - start)
        kept["additional"] = sum(s.nbytes for s in states)

    def captured_forward():
        start = time.thread_time()
        with capture_hidden_states(model, mask) as captured:
            entered = time.thread_time()
            model(ids, use_cache=False)
            left = time.thread_time()
        around.append(time.thread_time() - left + entered - start)
        kept["captured"] = captured.pooled.nbytes
        pooled["captured"] = captured.pooled

    benchmark.pedantic(captured_forward, setup=by_an_additional_forward, rounds=ROUNDS)
    same = [pooled[k][:, :-1].float() for k in ("captured", "additional")]  # the last layers differ by the final norm
    torch.testing.assert_close(*same, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-2)

    hooks = [sum(added[start : start + LAYERS]) for start in range(0, len(added), LAYERS)]
    seconds = statistics.median(h + a for h, a in zip(hooks, around, strict=True))
    forward = benchmark.stats.stats.median - seconds
    share, times_cheaper = seconds / forward, statistics.median(additional) / seconds
    times_smaller = kept["additional"] / kept["captured"]
    benchmark.extra_info.update(
        share_percent=round(100 * share, 3),
        added_ms=round(1e3 * seconds, 2),
        times_cheaper=round(times_cheaper),
        times_smaller=round(times_smaller),
        megabytes_kept=[round(kept[k] / 1e6, 2) for k in ("captured", "additional")],
    )
    print(f"\n{dtype}: {benchmark.extra_info}")
    assert share <= MAX_SHARE[dtype]
    assert times_cheaper >= MIN_TIMES_CHEAPER
    assert times_smaller >= MIN_TIMES_SMALLER
