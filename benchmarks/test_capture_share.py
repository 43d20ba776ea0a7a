"""What capture costs as a share of the log-prob forward it rides on, and what an additional forward costs instead.

Added work is timed where it is done (entering, inside the hooks, leaving, the cosine) and not as a difference of two
forwards, which is noise many times larger. All times are CPU time of one thread: other work on the machine does not count.

The forward is that of a random Qwen2 of Qwen2-0.5B's sizes, vocabulary included, over 8 x (128 + 256) tokens, with the
logits of all tokens, as trainers compute them; the log-softmax behind it is not counted. Bfloat16 is set against the
forward in bfloat16, and float32's is beside it in the details.
"""

import statistics
import time

import pytest
import torch
from results import GOALS, load, record
from transformers import Qwen2Config, Qwen2ForCausalLM

from tars_rewards import capture
from tars_rewards.capture import capture_hidden_states
from tars_rewards.similarity import cosine

LAYERS, HIDDEN, BATCH, PROMPT, COMPLETION, VOCABULARY = 24, 896, 8, 128, 256, 151936
TOKENS = PROMPT + COMPLETION
# The same numbers of prompt and completion tokens in rows of different lengths.
PROMPTS = [40, 60, 90, 128, 128, 160, 190, 228]
COMPLETIONS = [384, 64, 300, 200, 260, 340, 120, 380]
ROUNDS = 5
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 4864,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
}

pytestmark = pytest.mark.benchmark(group="capture", timer=time.thread_time, disable_gc=True, warmup=False)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def model(request):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval().to(request.param)


def padded():
    ids = torch.randint(3, VOCABULARY, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids}, (torch.arange(TOKENS) >= PROMPT).expand(BATCH, TOKENS), None


def packed():
    """Rows side by side without padding; the model keeps them apart by their positions."""
    lengths = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert sum(lengths) == BATCH * TOKENS
    assert sum(COMPLETIONS) == BATCH * COMPLETION
    ids = torch.randint(3, VOCABULARY, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(length) for length in lengths])
    mask = torch.cat([torch.arange(length) >= prompt for length, prompt in zip(lengths, PROMPTS, strict=True)])
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0)])
    return {"input_ids": ids, "position_ids": positions[None]}, mask[None], bounds


def timed(function) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def rewards(pooled):
    """Of the micro-batch's pairs: the first half of its rows against the second."""
    return cosine(pooled[: BATCH // 2], pooled[BATCH // 2 :])[0].mean(-1)


def by_an_additional_forward(model, inputs):
    """A forward of its own that keeps every layer's states; means and cosines one by one, as in the authors' code."""
    states = model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    values = []
    for row in range(BATCH // 2):
        layers = []
        for layer in states[1:]:
            pair = [layer[member, PROMPT:].mean(0) for member in (row, row + BATCH // 2)]
            layers.append(torch.nn.functional.cosine_similarity(*pair, dim=0).item())
        values.append(sum(layers) / len(layers))
    return values, states


@pytest.mark.parametrize("layout", [padded, packed])
def test_share(benchmark, model, layout, monkeypatch):
    inputs, mask, bounds = layout()
    added, floor, forward, whole, additional, parts = [], [], [], [], [], {"enter": [], "hooks": [], "leave": []}
    kept = {}
    hook = capture._Pooling.hook
    monkeypatch.setattr(capture._Pooling, "hook", lambda *args: added.append(timed(lambda: hook(*args))))

    def read_once(module, _inputs, output):
        """The least that any pooling can take: one sum over as many bytes of what the layer has just put out."""
        tokens = (output[0] if isinstance(output, tuple) else output).flatten(0, 1)[-BATCH * COMPLETION :]
        spent.append(timed(tokens.sum))

    def beside():
        if layout is not padded:
            return
        handles = [layer.register_forward_hook(read_once) for layer in model.model.layers]
        spent.clear()
        start = time.thread_time()
        _, states = by_an_additional_forward(model, inputs)
        additional.append(time.thread_time() - start - sum(spent))
        for handle in handles:
            handle.remove()
        floor.append(sum(spent))
        kept["additional"] = sum(layer.untyped_storage().nbytes() for layer in states)

    def captured_forward():
        added.clear()
        start = time.thread_time()
        with capture_hidden_states(model, mask, cu_seqlens=bounds) as captured:
            entered = time.thread_time()
            model(**inputs, use_cache=False)
            left = time.thread_time()
        rewards(captured.pooled)
        end = time.thread_time()
        assert len(added) == LAYERS
        for part, seconds in zip(parts, (entered - start, sum(added), end - left), strict=True):
            parts[part].append(seconds)
        whole.append(entered - start + sum(added) + end - left)
        forward.append(left - entered - sum(added))
        kept["captured"] = captured.pooled.untyped_storage().nbytes()

    spent: list[float] = []
    model(**{name: value[:, :64] for name, value in inputs.items()}, use_cache=False)
    benchmark.pedantic(captured_forward, setup=beside, rounds=ROUNDS)

    dtype = "fp32" if model.dtype == torch.float32 else "bf16"
    shares = [100 * spent / base for spent, base in zip(whole, forward, strict=True)]
    details = {f"{part}_ms": round(1e3 * statistics.median(seconds), 3) for part, seconds in parts.items()}
    details |= {"forward_s": round(statistics.median(forward), 3), "shares": [round(share, 4) for share in shares]}
    if floor:
        details["one_sum_ms"] = round(1e3 * statistics.median(floor), 3)
        details["one_sum_share"] = round(100 * statistics.median(floor) / statistics.median(forward), 4)
    float32 = load().get("rows", {}).get(f"capture/share/fp32/{layout.__name__}", {}).get("details", {})
    if dtype == "bf16" and "forward_s" in float32:
        details["share_of_the_float32_forward"] = round(100 * statistics.median(whole) / float32["forward_s"], 4)
    met = [
        record(f"capture/share/{dtype}/{layout.__name__}", statistics.median(shares), rounds=ROUNDS, details=details)
    ]
    if layout is padded:
        times = statistics.median(spent / ours for spent, ours in zip(additional, whole, strict=True))
        smaller = kept["additional"] / kept["captured"]
        met += [
            record_lower("capture/extra_forward/time", times, dtype, {"additional_s": statistics.median(additional)}),
            record_lower("capture/extra_forward/bytes", smaller, dtype, kept),
        ]
    print(f"\n{dtype} {layout.__name__}: {details}")
    assert all(met)


def record_lower(name, figure, dtype, details) -> bool:
    """Of both dtypes the worse figure counts; each is in the details."""
    before = load().get("rows", {}).get(name, {}).get("details", {}) if dtype == "bf16" else {}
    details = {**before, dtype: {"figure": figure, **details}}
    record(name, min(each["figure"] for each in details.values()), rounds=ROUNDS, details=details)
    return GOALS[name].met(figure)
