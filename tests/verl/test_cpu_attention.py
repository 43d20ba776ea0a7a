"""Attention under flash attention's interface, against the softmax written out, and how transformers finds it."""

import os
import subprocess
import sys

import pytest
import torch

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards_verl.cpu.attention import attention, varlen_attention

BOUNDS = torch.tensor([0, 5, 6, 13], dtype=torch.int32)


@pytest.fixture
def states():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(13, heads, 8, generator=generator) for heads in (4, 2, 2)]


def written_out(query, key, value, *, scale, causal, before=None):
    """One row, head by head; two query heads share a key head."""
    heads = []
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head // 2].T * scale
        distance = torch.arange(len(key)) - torch.arange(len(query))[:, None]
        hidden = (distance > 0) & causal
        if before is not None:
            hidden |= (distance < -before) | (distance > before)
        heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[:, head // 2])
    return torch.stack(heads, 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("before", [None, 2])
def test_packed_rows_attend_to_themselves_only(states, causal, before):
    window = {} if before is None else {"window_size": (before, before)}
    found = varlen_attention(*states, BOUNDS, BOUNDS, 7, 7, softmax_scale=0.3, causal=causal, **window)
    for start, stop in ((0, 5), (5, 6), (6, 13)):
        row = [each[start:stop] for each in states]
        expected = written_out(*row, scale=0.3, causal=causal, before=before)
        torch.testing.assert_close(found[start:stop], expected, rtol=0, atol=1e-6)


def test_a_batch_of_rows_is_each_row(states):
    query, key, value = (torch.stack([each[:6], each[6:12]]) for each in states)
    found = attention(query, key, value, causal=True)
    for row in range(2):
        expected = written_out(query[row], key[row], value[row], scale=8**-0.5, causal=True)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("option", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}])
def test_what_it_has_not_is_refused(states, option):
    with pytest.raises(UnsupportedConfigError, match="expected a model without soft-capped scores and attention sinks"):
        varlen_attention(*states, BOUNDS, BOUNDS, 7, 7, **option)


NAMED = """
import sys, torch
import verl
from transformers import AutoModelForCausalLM
load = lambda name: AutoModelForCausalLM.from_pretrained(sys.argv[1], attn_implementation=name).eval()
flash, plain = load("flash_attention_cpu"), load("sdpa")
packed = torch.arange(30, 52)[None], torch.cat([torch.arange(9), torch.arange(13)])[None]
with torch.no_grad():
    ours = flash(packed[0], position_ids=packed[1], use_cache=False).logits[0]
    rows = torch.cat([plain(row[None]).logits[0] for row in (packed[0][0, :9], packed[0][0, 9:])])
    padded = dict(input_ids=torch.stack([packed[0][0, :11]] * 2), attention_mask=torch.ones(2, 11, dtype=torch.long))
    padded["attention_mask"][1, 7:] = 0
    both = [model(**padded).logits[padded["attention_mask"].bool()] for model in (flash, plain)]
torch.testing.assert_close(ours, rows, rtol=0, atol=1e-5)
torch.testing.assert_close(*both, rtol=0, atol=1e-5)
print("fine")
"""


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", ""])
def test_transformers_finds_it_by_name_where_verl_runs_on_cpu_cores_and_nowhere_else(tiny, platform):
    done = subprocess.run(
        [sys.executable, "-c", NAMED, str(tiny / "text")],
        env={**os.environ, "VERL_PLATFORM": platform},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if platform:
        assert done.stdout.endswith("fine\n"), done.stderr[-2000:]
    else:
        assert '"flash_attention_cpu"` is not supported' in done.stderr
