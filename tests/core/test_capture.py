"""Pooled capture against a plain Hugging Face forward and against numpy."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import set_checkpoint_early_stop
from transformers import Qwen2Config, Qwen2ForCausalLM

from tars_rewards.capture import capture_hidden_states

LAYERS, HIDDEN = 4, 32


def tiny_qwen2(seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    sizes = dict(hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS, vocab_size=50)
    heads = dict(num_attention_heads=2, num_key_value_heads=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, initializer_range=0.2)).eval()  # states of order 1


class Echo(nn.Module):
    """A decoder whose layer l puts out `scale[l] * input`: its states are known without running it."""

    class Layer(nn.Module):
        def __init__(self, scale: float, wrap) -> None:
            super().__init__()
            self.scale, self.wrap = scale, wrap

        def forward(self, hidden):
            return self.wrap(hidden * self.scale)

    def __init__(self, scales=(1.0, -2.0), wrap=lambda hidden: hidden) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(2, 2)
        self.layers = nn.ModuleList(self.Layer(scale, wrap) for scale in scales)

    def forward(self, states):
        return [layer(states) for layer in self.layers]


def pool(model, inputs, mask, *, cu_seqlens=None, **kwargs):
    with torch.no_grad(), capture_hidden_states(model, mask, cu_seqlens=cu_seqlens) as captured:
        model(inputs, **kwargs)
    return captured


def padded(completion_lengths, prompt_lengths, side):
    """Token ids, attention mask and completion mask [batch, tokens] of prompt + completion, padded on one side."""
    generator = torch.Generator().manual_seed(1)
    lengths = [p + c for p, c in zip(prompt_lengths, completion_lengths, strict=True)]
    ids, attention, mask = (torch.zeros(len(lengths), max(lengths), dtype=torch.long) for _ in range(3))
    for row, (length, completion) in enumerate(zip(lengths, completion_lengths, strict=True)):
        start = max(lengths) - length if side == "left" else 0
        ids[row, start : start + length] = torch.randint(3, 50, (length,), generator=generator)
        attention[row, start : start + length] = 1
        mask[row, start + length - completion : start + length] = 1
    return ids, attention, mask.bool()


def masked_means(states, mask):
    """Oracle in numpy and float64: [batch, tokens, hidden] and [batch, tokens] to [batch, hidden]."""
    states, mask = states.detach().double().numpy(), mask.numpy()
    return np.stack([row[chosen].mean(0) for row, chosen in zip(states, mask, strict=True)])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("gaps", [False, True], ids=["adjacent", "gaps"])
def test_equals_a_plain_forward_that_outputs_its_hidden_states(side, gaps):
    model = tiny_qwen2()
    ids, attention, mask = padded([5, 9, 7], [4, 3, 8], side)
    if gaps:  # several turns: a tool's tokens in between are no completion
        for row in range(len(mask)):
            mask[row, mask[row].nonzero()[2:4, 0]] = False
    with torch.no_grad():
        with capture_hidden_states(model, mask) as captured:
            logits = model(ids, attention_mask=attention).logits
        plain = model(ids, attention_mask=attention, output_hidden_states=True)
        model.model.norm = nn.Identity()  # so that the last state that Hugging Face puts out is the residual stream
        raw_last = model(ids, attention_mask=attention, output_hidden_states=True).hidden_states[-1]

    assert captured.pooled.shape == (3, LAYERS, HIDDEN)
    assert captured.pooled.dtype == torch.float32
    assert captured.valid.tolist() == [True] * 3
    expected = [masked_means(states, mask) for states in [*plain.hidden_states[1:-1], raw_last]]
    np.testing.assert_allclose(captured.pooled.numpy(), np.stack(expected, axis=1), rtol=0, atol=1e-5)
    assert torch.equal(logits, plain.logits), "hooks must not change the forward"


def test_the_last_layer_is_before_the_final_norm_and_says_so():
    model = tiny_qwen2()
    ids, attention, mask = padded([1, 1], [4, 6], "right")  # one token: its mean is itself, so the norm can be applied
    with torch.no_grad():
        with capture_hidden_states(model, mask) as captured:
            model(ids, attention_mask=attention)
        last = model(ids, attention_mask=attention, output_hidden_states=True).hidden_states[-1][mask]
        assert captured.final_norm == "before"
        torch.testing.assert_close(model.model.norm(captured.pooled[:, -1]), last, rtol=0, atol=1e-5)
        assert (captured.pooled[:, -1] - last).abs().max() > 0.1, "a model whose norm does nothing would prove nothing"


def test_the_final_norm_can_stand_in_for_the_last_layer():
    model = tiny_qwen2()
    ids, attention, mask = padded([5, 3], [4, 6], "right")
    layers = [*model.model.layers[:-1], model.model.norm]
    with torch.no_grad():
        with capture_hidden_states(model, mask, layers=layers) as captured:
            model(ids, attention_mask=attention)
        plain = model(ids, attention_mask=attention, output_hidden_states=True).hidden_states[1:]
    assert captured.final_norm == "after"
    expected = np.stack([masked_means(states, mask) for states in plain], axis=1)
    np.testing.assert_allclose(captured.pooled.numpy(), expected, rtol=0, atol=1e-5)


def test_packed_equals_padded():
    model = tiny_qwen2()
    ids, attention, mask = padded([5, 9, 7], [4, 3, 8], "right")
    kept = attention.bool()
    cu_seqlens = torch.tensor([0, *attention.sum(1).cumsum(0)])
    positions = (attention.cumsum(1) - 1)[kept]
    with torch.no_grad():
        with capture_hidden_states(model, mask) as expected:
            model(ids, attention_mask=attention)
        for packed_mask in (mask[kept], mask[kept][None]):
            with capture_hidden_states(model, packed_mask, cu_seqlens=cu_seqlens) as captured:
                model(ids[kept][None], position_ids=positions[None], use_cache=False)
            torch.testing.assert_close(captured.pooled, expected.pooled, rtol=0, atol=1e-5)
            assert captured.valid.all()


@settings(deadline=None)
@given(data=st.data(), batch=st.integers(1, 4), tokens=st.integers(1, 12), pad=st.integers(0, 3))
def test_any_mask_and_layout_gives_the_mean_of_the_masked_tokens(data, batch, tokens, pad):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=batch * tokens, max_size=batch * tokens)))
    mask = mask.reshape(batch, tokens)
    states = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=(batch, tokens, 3)).astype(np.float32)
    captured = pool(Echo(), torch.from_numpy(states), torch.from_numpy(mask))
    # the same tokens packed, each row cut to a length of its own, with `pad` tokens of padding behind them all
    lengths = [data.draw(st.integers(int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0, tokens)) for row in mask]
    packed_mask = np.concatenate([row[:n] for row, n in zip(mask, lengths, strict=True)] + [np.zeros(pad, bool)])
    packed = np.concatenate([row[:n] for row, n in zip(states, lengths, strict=True)] + [np.full((pad, 3), np.nan)])
    cu_seqlens = torch.tensor([0, *np.cumsum(lengths)])
    packed_states = torch.from_numpy(packed.astype(np.float32))[None]
    from_packed = pool(Echo(), packed_states, torch.from_numpy(packed_mask), cu_seqlens=cu_seqlens)

    weights = mask / np.maximum(mask.sum(1, keepdims=True), 1)
    mean = np.einsum("bt,bth->bh", weights, states.astype(np.float64))
    expected = np.stack([mean, -2 * mean], axis=1)
    for result in (captured, from_packed):
        np.testing.assert_allclose(result.pooled.numpy(), expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(result.valid.numpy(), mask.any(1))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_every_row_gets_the_states_of_its_own_prompt(packed):
    """States that encode nothing but the prompt a row was run under: no row may get a part of another's."""
    prompts, mask = torch.tensor([3.0, 7.0, 11.0]), torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 1:3], mask[1, :6], mask[2, 5:] = True, True, True
    states = prompts[:, None, None].expand(-1, 6, 2)
    if packed:
        captured = pool(Echo(), states.reshape(1, 18, 2), mask.reshape(1, 18), cu_seqlens=torch.tensor([0, 6, 12, 18]))
    else:
        captured = pool(Echo(), states, mask)
    assert captured.pooled[:, 0, 0].tolist() == prompts.tolist()


def test_a_row_without_completion_is_absent_not_nan():
    mask = torch.tensor([[True, True, False], [False, False, False]])
    captured = pool(Echo(), torch.ones(2, 3, 2), mask)
    assert captured.valid.tolist() == [True, False]
    assert captured.pooled.tolist() == [[[1, 1], [-2, -2]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """Massive activations: 300 tokens x 60,000 overflow a float16 sum; one dimension hides the others in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 300, 8, generator=generator)
    states[..., 3] = 6e4
    states = states.to(dtype)
    mask = torch.ones(2, 300, dtype=torch.bool)
    captured = pool(Echo(scales=[1.0]), states, mask)
    assert captured.pooled.dtype == torch.float32
    np.testing.assert_allclose(captured.pooled[:, 0].numpy(), masked_means(states, mask), rtol=1e-6, atol=1e-6)
    assert states.sum(1)[0, 3].isinf() or dtype == torch.bfloat16, "else this would not show the overflow"


@pytest.mark.parametrize("wrap", [lambda h: (h,), lambda h: [h, "cache"]], ids=["tuple", "list"])
def test_layers_that_put_out_more_than_their_states(wrap):
    states, mask = torch.randn(2, 3, 2), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(pool(Echo(wrap=wrap), states, mask).pooled, pool(Echo(), states, mask).pooled)


def test_autograd_neither_sees_the_capture_nor_is_changed_by_it():
    ids, attention, mask = padded([5, 3], [4, 6], "right")
    gradients = []
    for capturing in (False, True):
        model = tiny_qwen2().train()
        if capturing:
            with capture_hidden_states(model, mask) as captured:
                loss = model(ids, attention_mask=attention, labels=ids).loss
            assert not captured.pooled.requires_grad
        else:
            loss = model(ids, attention_mask=attention, labels=ids).loss
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(without, having) for without, having in zip(*gradients, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_gradient_checkpointing_pools_the_forward_only(reentrant, backward_inside):
    ids, attention, mask = padded([5, 3], [4, 6], "right")
    model = tiny_qwen2().train()
    expected = pool(model, ids, mask, attention_mask=attention)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    model.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    with set_checkpoint_early_stop(False):  # else a layer's second run ends before its hooks
        with capture_hidden_states(model, mask) as captured:
            loss = model(ids, attention_mask=attention, labels=ids, use_cache=False).loss
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()
    assert len(calls) == 2, "a layer that is not run again would prove nothing"
    torch.testing.assert_close(captured.pooled, expected.pooled, rtol=0, atol=1e-6)


class LiveTensors(TorchDispatchMode):
    """Remembers, weakly, every tensor that an operation puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen += [weakref.ref(leaf) for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        return out

    def nbytes(self) -> int:
        gc.collect()
        live = (tensor for tensor in (ref() for ref in self.seen) if tensor is not None)
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in live}.values())


def test_nothing_but_the_pooled_states_outlives_the_forward():
    model = tiny_qwen2()
    ids, attention, mask = padded([5, 9, 7], [40, 30, 80], "right")
    mask[0, -3] = True  # one row that is no slice
    with torch.no_grad(), LiveTensors() as live:
        with capture_hidden_states(model, mask) as captured:
            model(ids, attention_mask=attention, use_cache=False)
            during = live.nbytes()
        after = live.nbytes()
    kept = captured.pooled.nbytes
    assert kept == 3 * LAYERS * HIDDEN * 4
    assert during <= kept + 1024  # the positions of the row that is no slice
    assert after <= kept + 64  # `valid`
    model_ref = weakref.ref(model)
    del model
    gc.collect()
    assert model_ref() is None, "captured states must not keep the model alive"


def test_the_tracker_would_notice_a_kept_hidden_state():
    model, kept = tiny_qwen2(), []
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad(), LiveTensors() as live:
        model(torch.ones(3, 85, dtype=torch.long), use_cache=False)
        assert live.nbytes() > 3 * LAYERS * HIDDEN * 4 + 1024


@pytest.mark.parametrize("values", [8, 7 * 8, 300 * 8])
def test_half_precision_in_pieces(values, monkeypatch):
    """Pieces of one token, of seven (the last one shorter), and one of all 300 tokens."""
    monkeypatch.setattr("tars_rewards.capture._CHUNK_VALUES", values)
    states = torch.randn(2, 300, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(2, 300, dtype=torch.bool)
    mask[1, 5] = False
    captured = pool(Echo(scales=[1.0]), states, mask)
    np.testing.assert_allclose(captured.pooled[:, 0].numpy(), masked_means(states, mask), rtol=1e-5, atol=1e-6)
